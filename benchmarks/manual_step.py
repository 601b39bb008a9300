"""`python -m benchmarks.manual_step`: a training step of `scratch`, with hand-written and with automatic gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from eqxcnn.cli import run_command
from eqxcnn.training import load_recipe

from .mlp_epoch import EpochTrainer, prepare_job
from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark


@dataclass(frozen=True)
class Options:
    """Measure a step of `scratch` on random pixels of MNIST's shape, with gradients by hand and by autodiff."""

    batches: int = 50
    """Steps of batch 64 per measurement, each in its own call."""
    steps: int = 1000
    """Steps of batch 1 per measurement, all in one call."""
    rounds: int = 15
    """Measurements of each case."""
    out: Path = RESULTS / "manual_step.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.manual_step", args=arguments)
    cases, ratios = {}, []
    for label, size, steps, per_call in (
        ("batch 64", 64, options.batches, 1),
        (f"batch 1, {options.steps} steps per call", 1, options.steps, options.steps),
    ):
        by_hand, autodiff = f"by hand, {label}", f"autodiff, {label}"
        cases[by_hand] = _make_case("by_hand", size, steps, per_call)
        cases[autodiff] = _make_case("autodiff", size, steps, per_call)
        ratios.append(Ratio(by_hand, autodiff, "<= 1.25"))
    title = "A step of `scratch` with hand-written and with automatic gradients, on random pixels of MNIST's shape"
    run_benchmark(Benchmark("manual_step", title, arguments, "ms", cases, ratios), options.rounds, options.out)


def _make_case(gradients: Literal["autodiff", "by_hand"], batch_size: int, steps: int, steps_per_call: int) -> Case:
    """Returns a case that trains for `steps` steps and reports the time per step."""
    recipe = load_recipe("scratch")
    recipe = replace(recipe, gradients=gradients, batch_size=batch_size, steps_per_call=steps_per_call)
    return Case(EpochTrainer(prepare_job(recipe, steps)), 1 / steps)


if __name__ == "__main__":
    run_command(main)
