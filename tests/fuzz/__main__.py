"""Feeds generated and damaged input to every entrance of the library, and reports the faults that it finds.

    python -m tests.fuzz --seconds 60 --seed 0          # all entrances, each for an equal time
    python -m tests.fuzz --seed 0 --only image:123      # one case again
    python -m tests.fuzz --seed 0 --only image          # one entrance

A case is `accepted`, or `refused` with an `InputError`. Everything else is a fault:

- `traceback`: another exception
- `hang`: over 10 seconds of processor time, or over 40 seconds of waiting
- `memory`: over 4 GB
- `crash`: the process died
- `silent`: damaged or meaningless input is accepted
- `raw output`: control characters, or an endless line, are printed
- `network`: a connection is opened

Each kind of fault is shown once, with its smallest case, whose files stay in a folder. The exit code is 1 if there is
a fault. A case depends only on its number and the seed, so `--only image:123` repeats it on any machine.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .watch import Verdict, Watch

MODULE = "tests.fuzz.entrances"
#: Entrances in the order in which they take turns.
NAMES = (
    "safetensors", "config", "pth", "state_dict", "yaml", "settings", "strings", "image", "body", "arrays", "calls",
    "classes", "tables", "saved", "cache", "resume", "report", "seeds", "command",
)  # fmt: skip


@dataclass
class Findings:
    """The verdicts of all cases, and the smallest case of each kind of fault."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: dict[tuple[str, str], tuple[int, str, Verdict]] = field(default_factory=dict)

    def add(self, entrance: str, number: int, verdict: Verdict, folder: Path, out: Path) -> None:
        """Counts a case; keeps the folder of a fault if all earlier cases of the same kind of fault were larger."""
        self.counts[entrance][verdict.name] += 1
        if verdict.is_fault:
            size, known = _measure(folder), self.faults.get((entrance, verdict.kind))
            if known is None or size < known[0]:
                case = f"{entrance}:{number}"
                if known is not None:
                    shutil.rmtree(_kept(out, known[1]), ignore_errors=True)
                if folder.exists():
                    shutil.move(folder, _kept(out, case))
                self.faults[entrance, verdict.kind] = size, case, verdict
        shutil.rmtree(folder, ignore_errors=True)


def _kept(out: Path, case: str) -> Path:
    return out / case.replace(":", "-")


def _measure(folder: Path) -> int:
    """Returns the total size in bytes of a folder's files, without pipes and links."""
    files = (path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())
    return sum(path.stat().st_size for path in files)


def fuzz(watch: Watch, names: tuple[str, ...], seconds: float, out: Path) -> Findings:
    """Runs cases for a number of seconds; the next case is always for the entrance with the least time so far."""
    findings, spent, numbers = Findings(), dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    while sum(spent.values()) < seconds:
        name = min(names, key=lambda each: spent[each])
        verdict = watch.run(name, numbers[name])
        findings.add(name, numbers[name], verdict, watch.work / f"{name}-{numbers[name]}", out)
        numbers[name] += 1
        spent[name] += watch.spent
    return findings


def format_findings(findings: Findings, seed: int, out: Path) -> str:
    """Returns the table of cases by entrance and verdict, and each fault with its details."""
    verdicts = ["refused", "accepted"]
    verdicts += sorted({name for counts in findings.counts.values() for name in counts} - set(verdicts))
    lines = [f"{'entrance':<12}" + "".join(f"{name:>12}" for name in verdicts)]
    for entrance, counts in findings.counts.items():
        lines.append(f"{entrance:<12}" + "".join(f"{counts[name]:>12,}" for name in verdicts))
    for (_, kind), (_, case, verdict) in findings.faults.items():
        lines += ["", f"{verdict.name}: {kind}", verdict.detail.rstrip(), f"files: {_kept(out, case)}"]
        lines.append(f"again: python -m tests.fuzz --seed {seed} --only {case}")
    return "\n".join(lines)


def main() -> None:
    """Parses the flags, runs the cases and prints the findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time for all cases; their preparation takes another minute"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases")
    parser.add_argument("--only", help="an entrance, or one case: ENTRANCE:NUMBER")
    parser.add_argument("--out", type=Path, help="folder of the faults' smallest cases; by default a temporary one")
    options = parser.parse_args()
    name, _, number = (options.only or "").partition(":")
    if name and name not in NAMES:
        parser.error(f"there is no entrance {name!r}: choose from {', '.join(NAMES)}")
    out = options.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-work-", ignore_cleanup_errors=True) as work:
        watch = Watch(MODULE, options.seed, Path(work))
        try:
            if number:
                findings = Findings()
                findings.add(name, int(number), watch.run(name, int(number)), Path(work) / f"{name}-{number}", out)
            else:
                findings = fuzz(watch, (name,) if name else NAMES, options.seconds, out)
        finally:
            watch.stop()
    print(format_findings(findings, options.seed, out.resolve()))
    sys.exit(bool(findings.faults))


if __name__ == "__main__":
    main()
