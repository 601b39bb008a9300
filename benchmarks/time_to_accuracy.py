"""`python -m benchmarks.time_to_accuracy`: time to train a good classifier, and its test accuracy.

Trains each recipe with its command, one process per seed. The time includes the whole process: imports, reading the
decoded images from the cache, compilation, training, the test and writing the files. A target is met if every seed
meets it. By default, only MNIST is measured; CIFAR-10 takes minutes per seed and is measured by a separate command.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.runs.folder import read_metrics
from eqxcnn.training import load_recipe

from .markdown import format_number
from .timing import RESULTS, ResultTable, check_options, write_tables


@dataclass(frozen=True)
class Options:
    """Train recipes with several seeds, and report time and test accuracy; each list needs one item per recipe."""

    recipes: tuple[str, ...] = ("mnist_fast",)
    """Names of shipped recipes, or YAML files."""
    data: tuple[str, ...] = ()
    """Each recipe's data set, by name or folder; by default the recipe's own."""
    epochs: tuple[float, ...] = ()
    """Each recipe's epochs; by default the recipe's own."""
    accuracies: tuple[float, ...] = (0.99,)
    """Target of each recipe's test accuracy, from 0 to 1."""
    seconds: tuple[float, ...] = (30.0,)
    """Upper limit of each recipe's time."""
    seeds: int = 3
    """Number of seeds, starting from 0."""
    out: Path = RESULTS / "time_to_accuracy.json"
    """Path of the results file."""


class TrainingResult(NamedTuple):
    """Seconds of a run's process, and its test accuracy from 0 to 1."""

    seconds: float
    accuracy: float


def main(arguments: Sequence[str]) -> None:
    """Parses the options, trains the networks, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.time_to_accuracy", args=arguments)
    recipes = [load_recipe(recipe) for recipe in options.recipes]
    data = options.data or tuple(recipe.data for recipe in recipes)
    epochs = options.epochs or tuple(recipe.epochs for recipe in recipes)
    for name, values in (
        ("data", data),
        ("epochs", epochs),
        ("accuracies", options.accuracies),
        ("seconds", options.seconds),
    ):
        if len(values) != len(options.recipes):
            raise InputError(f"`{name}` (={values}) must have one item per recipe, {len(options.recipes)}")
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check_options(2, options.out)
    rows = []
    for recipe, source, length, accuracy, seconds in zip(
        options.recipes, data, epochs, options.accuracies, options.seconds, strict=True
    ):
        runs = [train(recipe, source, length, seed) for seed in range(options.seeds)]
        rows.append(make_row(recipe, length, runs, accuracy, seconds))
    head = (
        "recipe", "epochs", "seeds",
        "test accuracy (%)", "lowest", "target", "seconds, median", "longest", "target", "met",
    )  # fmt: skip
    title = "Accuracies and times of whole training processes, from start to end"
    write_tables("time_to_accuracy", title, arguments, [ResultTable(head, rows)], options.out)


def train(recipe: str, data: str, epochs: float | None, seed: int) -> TrainingResult:
    """Trains in a new process; without `epochs`, for the default number of epochs.

    **Raises:** `InputError` with the last line of the process's output if the process fails.
    """
    with TemporaryDirectory() as runs:
        flags = ["--recipe", recipe, "--data", data, "--seed", str(seed), "--runs", runs]
        flags += [] if epochs is None else ["--epochs", str(epochs)]
        started = perf_counter()
        process = subprocess.run(
            [sys.executable, "-m", "eqxcnn.train", *flags], capture_output=True, text=True, check=False
        )
        seconds = perf_counter() - started
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or ["no output"])[-1]
            raise InputError(f"training `{recipe}` on `{data}` with seed {seed} failed with: {last_line}")
        (folder,) = Path(runs).iterdir()
        return TrainingResult(seconds, read_metrics(folder)[-1]["test_accuracy"])


def make_row(
    recipe: str, epochs: float | None, runs: Sequence[TrainingResult], accuracy: float, seconds: float
) -> tuple[str, ...]:
    """Returns a recipe's row: accuracy as mean ± sample deviation, times, and whether all runs meet the targets."""
    accuracies, times = [run.accuracy for run in runs], [run.seconds for run in runs]
    is_met = min(accuracies) >= accuracy and max(times) <= seconds
    deviation = f" ± {100 * stdev(accuracies):.2f}" if len(runs) > 1 else ""
    return (
        f"`{recipe}`", "default" if epochs is None else f"{epochs:g}", str(len(runs)),
        f"{100 * mean(accuracies):.2f}{deviation}",
        f"{100 * min(accuracies):.2f}", f">= {100 * accuracy:g}", format_number(median(times)),
        format_number(max(times)), f"<= {seconds:g}", "yes" if is_met else "no",
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
