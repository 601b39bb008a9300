"""How benchmarks measure: in turns within one process, by ratios, and with no ratio from a machine too noisy for it."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from eqxcnn.errors import InputError
from eqxcnn.runs.folder import environment
from eqxcnn.weights import write_text_atomically

#: Where results lie, seen from the checkout that `python -m benchmarks.NAME` is run in.
RESULTS = Path("benchmarks/results")
#: A ratio is given only if the middle half of its rounds spans at most this share of their median.
NOISE = 0.25
#: The commit and the platform are left out: they name no version, and the platform names a machine's kernel.
_ENVIRONMENT = ("python", "jax", "jaxlib", "equinox", "optax", "processor", "cores", "devices")


class Case(NamedTuple):
    """What is timed; each time is multiplied by `scale`, to stand for more work than was done, or for less.

    `before` is called each time before it, and is not counted.
    """

    call: Callable[[], Any]
    scale: float = 1.0
    before: Callable[[], Any] | None = None


class Ratio(NamedTuple):
    """The time of one case over that of another, and what it should be: `<= 0.8`, say.

    `over` may name several cases, together called `name`: the one with the least median then counts.
    """

    over: str | tuple[str, ...]
    under: str
    target: str | None = None
    name: str | None = None

    @property
    def words(self) -> str:
        """What the ratio is called in the results."""
        return f"{self.name or self.over} / {self.under}"


class Rows(NamedTuple):
    """A table of figures that is told as it stands, where times and ratios alone would not say it."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Benchmark:
    """What is measured and how it is told.

    - `name`, `title`: its module's name, and a heading.
    - `arguments`: the command line after the module's name.
    - `unit`: in which times are given.
    - `cases`, `ratios`: what is timed, by name, and which of those names are compared.
    - `warm_up`: whether every case is called once before, which is not counted: it compiles what the others then run.
    - `images`: how many images a case's time stands for, where speeds are told too.
    - `tables`: makes what else is told, of every case's seconds.
    """

    name: str
    title: str
    arguments: Sequence[str]
    unit: Literal["ms", "s"]
    cases: Mapping[str, Case]
    ratios: Sequence[Ratio]
    warm_up: bool = True
    images: int | None = None
    tables: Callable[[Mapping[str, Sequence[float]]], Sequence[Rows]] | None = None


def run(benchmark: Benchmark, rounds: int, out: Path, clock: Callable[[], float] = perf_counter) -> None:
    """Measures, prints a table and writes the results to `out`.

    **Raises:** `InputError` when there are too few rounds, or no folder for `out`.
    """
    check(rounds, out)
    tell(benchmark, measure(benchmark.cases, rounds, clock, benchmark.warm_up), out)


def tell(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]], out: Path) -> None:
    """Writes and prints what was measured: the seconds of each case, a number for each round."""
    write_text_atomically(out, json.dumps(results(benchmark, seconds), indent=2) + "\n")
    show(benchmark, seconds, Console())


def check(rounds: int, out: Path) -> None:
    """Refuses what cannot be told or written, before anything is measured.

    **Raises:** as `run`.
    """
    if rounds < 2:
        raise InputError(f"`rounds` (={rounds}) must be 2 or more: a single one has no spread")
    if not out.parent.is_dir():
        raise InputError(f"`out` (={out}) lies in a folder that is not there: make `{out.parent}` first")


def write_rows(name: str, title: str, arguments: Sequence[str], tables: Sequence[Rows], out: Path) -> None:
    """Prints tables and writes them to `out`, with the same words around them as `run` writes.

    **Arguments:**

    - `name`, `title`, `arguments`: as a `Benchmark` has them.
    """
    told = {"tables": [each._asdict() for each in tables]}
    write_text_atomically(out, json.dumps(_opening(name, title, arguments) | told, indent=2) + "\n")
    _print_rows(tables, title, Console())


def measure(
    cases: Mapping[str, Case], rounds: int, clock: Callable[[], float] = perf_counter, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every case in every round, in turns, after a first call (if `warm_up`) that is not counted."""
    if warm_up:
        for case in cases.values():
            jax.block_until_ready(case.call())
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        # A machine that slows down within a round favors those that come first, so the next round is the other way.
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            case = cases[name]
            if case.before is not None:
                jax.block_until_ready(case.before())
            started = clock()
            jax.block_until_ready(case.call())
            seconds[name].append((clock() - started) * case.scale)
    return seconds


def spread(values: Sequence[float]) -> list[float]:
    """Median, lower and upper quartile, to four digits."""
    return [float(f"{each:.4g}") for each in np.quantile(values, [0.5, 0.25, 0.75])]


def ratio_spread(ratio: Ratio, seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """The spread of the rounds' own ratios: what slows a whole round cancels out."""
    names = (ratio.over,) if isinstance(ratio.over, str) else ratio.over
    best = min(names, key=lambda name: np.median(seconds[name]))
    return spread(np.divide(seconds[best], seconds[ratio.under]).tolist())


def is_noisy(ratio: Sequence[float]) -> bool:
    """Whether the rounds disagree too much on a ratio (median, low, high) for it to be told."""
    median, low, high = ratio
    return high - low > NOISE * median


def results(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What is written of a benchmark; a ratio that is too noisy is `None`."""
    ratios = {each.words: ratio_spread(each, seconds) for each in benchmark.ratios}
    return {
        **_opening(benchmark.name, benchmark.title, benchmark.arguments),
        "unit": benchmark.unit,
        "times": _times(benchmark, seconds),
        **({} if benchmark.images is None else {"images_per_second": _speeds(benchmark.images, seconds)}),
        "ratios": {words: None if is_noisy(ratio) else ratio for words, ratio in ratios.items()},
        "targets": {each.words: each.target for each in benchmark.ratios if each.target is not None},
        "rounds": len(next(iter(seconds.values()))),
        **({} if benchmark.tables is None else {"tables": [each._asdict() for each in benchmark.tables(seconds)]}),
    }


def _opening(name: str, title: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What every benchmark's file begins with."""
    machine = environment()
    # The command is published, so that of an absolute path it has only the last part.
    options = (word.rpartition("=") for word in arguments)
    words = (f"{flag}{sign}{Path(value).name if value[:1] in '/~' else value}" for flag, sign, value in options)
    return {
        "name": name,
        "title": title,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *words]),
        "environment": {key: machine[key] for key in _ENVIRONMENT},
    }


def show(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]], console: Console) -> None:
    """Prints times and ratios, and a sentence for each ratio that is too noisy to be given."""
    table = Table("", "median", "quartiles", "target", title=benchmark.title)
    speeds = {} if benchmark.images is None else _speeds(benchmark.images, seconds)
    for name, (median, low, high) in _times(benchmark, seconds).items():
        speed = f" ({speeds[name]:,.0f} images/s)" if name in speeds else ""
        table.add_row(name, f"{median:.3g} {benchmark.unit}{speed}", f"{low:.3g} to {high:.3g}")
    table.add_section()
    sentences = []
    for each in benchmark.ratios:
        median, low, high = ratio = ratio_spread(each, seconds)
        shown = ("too noisy", "") if is_noisy(ratio) else (f"{median:.3g}", f"{low:.3g} to {high:.3g}")
        table.add_row(each.words, *shown, each.target)
        if is_noisy(ratio):
            sentences.append(
                f"The machine was too noisy to tell {each.words}: the middle half of the rounds spans {low:.3g} to "
                f"{high:.3g}, more than {NOISE:.0%} of the median; repeat it when nothing else runs."
            )
    console.print(table, *sentences, sep="\n")
    if benchmark.tables is not None:
        _print_rows(benchmark.tables(seconds), benchmark.title, console)


def _print_rows(tables: Sequence[Rows], title: str, console: Console) -> None:
    for each in tables:
        table = Table(*each.head, title=title)
        for line in each.lines:
            table.add_row(*line)
        console.print(table)


def _times(benchmark: Benchmark, seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The spread of each case's times in the benchmark's unit."""
    factor = {"s": 1.0, "ms": 1e3}[benchmark.unit]
    return {name: spread([each * factor for each in values]) for name, values in seconds.items()}


def _speeds(images: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Images a second of each case, by its median, to four digits."""
    return {name: float(f"{images / np.median(values):.4g}") for name, values in seconds.items()}
