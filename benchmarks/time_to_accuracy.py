"""`python -m benchmarks.time_to_accuracy`: how long a person waits for a good classifier, and how good it is.

Each recipe is trained by its command, one process a seed. Time is from the start of the process to its end: imports,
decoded images from the cache, compilation, training, the test, the files. A target is met when every seed meets it.
MNIST alone unless told otherwise: CIFAR-10 takes minutes a seed, so it is measured by a command of its own.
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

from .markdown import number
from .timing import RESULTS, Rows, check, write_rows


@dataclass(frozen=True)
class Options:
    """Trains recipes for several seeds and tells seconds and test accuracy; the lists go together, item by item."""

    recipes: tuple[str, ...] = ("mnist_fast",)
    """Names of shipped recipes, or YAML files."""
    data: tuple[str, ...] = ()
    """A data set's name or folder for each; by default the recipe's own."""
    accuracies: tuple[float, ...] = (0.99,)
    """What each should reach on the test split, from 0 to 1."""
    seconds: tuple[float, ...] = (30.0,)
    """What each should take at most."""
    seeds: int = 3
    """How many seeds, from 0 on."""
    out: Path = RESULTS / "time_to_accuracy.json"
    """The file that the results go to."""


class Trained(NamedTuple):
    """How long a run took, in seconds, and its test accuracy, from 0 to 1."""

    seconds: float
    accuracy: float


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.time_to_accuracy", args=arguments)
    data = options.data or tuple(load_recipe(recipe).data for recipe in options.recipes)
    for name, values in (("data", data), ("accuracies", options.accuracies), ("seconds", options.seconds)):
        if len(values) != len(options.recipes):
            raise InputError(f"`{name}` (={values}) must be as many as the recipes, {len(options.recipes)}")
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check(2, options.out)
    lines = []
    for recipe, source, accuracy, seconds in zip(
        options.recipes, data, options.accuracies, options.seconds, strict=True
    ):
        runs = [train(recipe, source, seed) for seed in range(options.seeds)]
        lines.append(line(recipe, runs, accuracy, seconds))
    head = (
        "recipe", "seeds", "test accuracy (%)", "lowest", "target", "seconds, median", "longest", "target", "met",
    )  # fmt: skip
    write_rows(
        "time_to_accuracy", "Recipes from the start of the process to its end", arguments, [Rows(head, lines)],
        options.out,
    )  # fmt: skip


def train(recipe: str, data: str, seed: int) -> Trained:
    """Trains in a process of its own.

    **Raises:** `InputError` with what that process said when it failed.
    """
    with TemporaryDirectory() as runs:
        flags = ["--recipe", recipe, "--data", data, "--seed", str(seed), "--runs", runs]
        started = perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "eqxcnn.train", *flags], capture_output=True, text=True, check=False
        )
        seconds = perf_counter() - started
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise InputError(f"training `{recipe}` on `{data}` with seed {seed} failed, and said: {said[-1]}")
        (folder,) = Path(runs).iterdir()
        return Trained(seconds, read_metrics(folder)[-1]["test_accuracy"])


def line(recipe: str, runs: Sequence[Trained], accuracy: float, seconds: float) -> tuple[str, ...]:
    """A recipe's line of the table: accuracies as mean ± sample deviation, times, and whether all meet the targets."""
    reached, took = [run.accuracy for run in runs], [run.seconds for run in runs]
    is_met = min(reached) >= accuracy and max(took) <= seconds
    deviation = f" ± {100 * stdev(reached):.2f}" if len(runs) > 1 else ""
    return (
        f"`{recipe}`", str(len(runs)), f"{100 * mean(reached):.2f}{deviation}",
        f"{100 * min(reached):.2f}", f">= {100 * accuracy:g}", number(median(took)), number(max(took)),
        f"<= {seconds:g}", "yes" if is_met else "no",
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
