"""`python -m benchmarks.startup`: what passes before training is under way, and how much memory it takes.

A process that trains LeNet on the bundled digits, as the first command of the documentation does, from its start to the
end; and the time to compile a train step alone.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import optax
import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError

from .markdown import number
from .our_step import compiler
from .timing import RESULTS, Case, Rows, check, measure, spread, write_rows

#: Moments of `startup_probe`, in order.
_MOMENTS = {
    "imported": "everything is imported",
    "prepared": "the data are decoded and the model is made",
    "stepped": "the first step is done",
    "ended": "the run is finished",
}


@dataclass(frozen=True)
class Options:
    """Times the start of `python -m eqxcnn.train`, in processes of its own, and the compilation of train steps."""

    model: str = "lenet"
    """What is trained, on the bundled digits."""
    compile: tuple[str, ...] = ("lenet", "resnet20")
    """The networks whose train step is compiled."""
    rounds: int = 5
    """How often everything is timed."""
    out: Path = RESULTS / "startup.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.startup", args=arguments)
    check(options.rounds, options.out)
    compiling = {
        f"compiling a train step of `{name}`": Case(compiler(name, optax.adam(1e-3), 64)) for name in options.compile
    }
    started = [start(options.model) for _ in range(options.rounds)]
    compiled = measure(compiling, options.rounds, warm_up=False)
    seconds = {f"until {words}": [each[moment] for each in started] for moment, words in _MOMENTS.items()} | compiled
    memory = [each["megabytes"] for each in started]
    tables = [
        Rows(("seconds", "median", "lower quartile", "upper quartile"), _lines(seconds)),
        Rows(("MiB", "median", "lower quartile", "upper quartile"), _lines({"most memory of the process": memory})),
    ]
    title = f"`python -m eqxcnn.train --model {options.model}`, from the start of the process"
    write_rows("startup", title, arguments, tables, options.out)


def start(model: str) -> dict[str, float]:
    """Trains in a process of its own; gives the seconds from its start to each moment, and its most `megabytes`.

    **Raises:** `InputError` with what that process said when it failed.
    """
    with TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "benchmarks.startup_probe", "--model", model, "--runs", runs]
        started = monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"training `{model}` failed, and said: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}"
        )
    told = json.loads(done.stdout.splitlines()[-1])
    # The clock that only goes forward is one for all processes of a machine.
    return {name: value - (0 if name == "megabytes" else started) for name, value in told.items()}


def _lines(measured: dict[str, list[float]]) -> list[tuple[str, ...]]:
    return [(words, *map(number, spread(values))) for words, values in measured.items()]


if __name__ == "__main__":
    run_command(main)
