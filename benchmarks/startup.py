"""`python -m benchmarks.startup`: time until training is under way, and peak memory.

Runs the README's first training command, LeNet on the bundled digits, in a new process; also times the compilation of
a train step.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

import optax
import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError

from .markdown import format_number
from .timing import RESULTS, Case, ResultTable, check_options, measure, spread, write_tables
from .trainer_step import make_compile_function

#: Moments that `startup_probe` reports, in order, and their descriptions.
MOMENTS = {
    "imported": "everything is imported",
    "prepared": "the data are decoded and the model is built",
    "stepped": "the first step is done",
    "ended": "the run is finished",
}
QUARTILES = ("median", "lower quartile", "upper quartile")


class Probe(NamedTuple):
    """The measurements that a training process reports.

    - `seconds`: seconds from the start of the process to each of `MOMENTS`.
    - `peak`: peak resident memory of the process in MiB.
    - `memory`: resident memory of the process in MiB after each step.
    """

    seconds: dict[str, float]
    peak: float
    memory: dict[int, float]


@dataclass(frozen=True)
class Options:
    """Time the start of `python -m eqxcnn.train` in a new process, and the compilation of train steps."""

    model: str = "lenet"
    """The model to train on the bundled digits."""
    compile: tuple[str, ...] = ("lenet", "resnet20")
    """Networks whose train step is compiled."""
    rounds: int = 5
    """Measurements of each case."""
    out: Path = RESULTS / "startup.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.startup", args=arguments)
    check_options(options.rounds, options.out)
    compile_cases = {
        f"compiling a train step of `{name}`": Case(make_compile_function(name, optax.adam(1e-3), 64))
        for name in options.compile
    }
    probes = [run_probe("--model", options.model) for _ in range(options.rounds)]
    compile_seconds = measure(compile_cases, options.rounds, warm_up=False)
    seconds = {f"until {phrase}": [probe.seconds[moment] for probe in probes] for moment, phrase in MOMENTS.items()}
    memory = {"peak memory of the process": [probe.peak for probe in probes]}
    tables = [
        ResultTable(("seconds", *QUARTILES), format_quartiles(seconds | compile_seconds)),
        ResultTable(("MiB", *QUARTILES), format_quartiles(memory)),
    ]
    title = (
        f"Times from the start of the process `python -m eqxcnn.train --model {options.model}`, its peak memory, and "
        "times of compilation"
    )
    write_tables("startup", title, arguments, tables, options.out)


def run_probe(*flags: str) -> Probe:
    """Runs `eqxcnn.train` with these flags in a new process.

    **Raises:** `InputError` with the last line of the process's output if the process fails.
    """
    with TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "benchmarks.startup_probe", *flags, "--runs", runs]
        started = monotonic()
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last_line = (process.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"training with `{' '.join(flags)}` failed with: {last_line}")
    reported = json.loads(process.stdout.splitlines()[-1])
    # The monotonic clock is shared by all processes of a machine.
    seconds = {moment: time - started for moment, time in reported["moments"].items()}
    return Probe(seconds, reported["peak"], dict(reported["memory"]))


def format_quartiles(measured: dict[str, list[float]]) -> list[tuple[str, ...]]:
    """Returns the lines of a table: label, median, lower and upper quartile."""
    return [(label, *map(format_number, spread(values))) for label, values in measured.items()]


if __name__ == "__main__":
    run_command(main)
