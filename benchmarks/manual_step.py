"""`python -m benchmarks.manual_step`: a step of `scratch` by hand against one by automatic differentiation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from eqxcnn.cli import run_command
from eqxcnn.training import load_recipe

from .mlp_epoch import Training, prepared
from .timing import RESULTS, Benchmark, Case, Ratio, run


@dataclass(frozen=True)
class Options:
    """Times a step of `scratch`, on random pixels of MNIST's shape, by hand and by automatic differentiation."""

    batches: int = 50
    """Steps of batch 64 that are timed together, each a call of its own."""
    steps: int = 1000
    """Steps of batch 1 that are timed together, in a single call."""
    rounds: int = 15
    """How often everything is timed."""
    out: Path = RESULTS / "manual_step.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.manual_step", args=arguments)
    cases, ratios = {}, []
    for words, size, steps, per_call in (
        ("batch 64", 64, options.batches, 1),
        (f"batch 1, {options.steps} steps a call", 1, options.steps, options.steps),
    ):
        by_hand, autodiff = f"by hand, {words}", f"autodiff, {words}"
        cases[by_hand] = _case("by_hand", size, steps, per_call)
        cases[autodiff] = _case("autodiff", size, steps, per_call)
        ratios.append(Ratio(by_hand, autodiff, "<= 1.25"))
    title = "A step of `scratch`: gradients by hand and by automatic differentiation, random pixels in MNIST's shape"
    run(Benchmark("manual_step", title, arguments, "ms", cases, ratios), options.rounds, options.out)


def _case(gradients: Literal["autodiff", "by_hand"], batch_size: int, steps: int, steps_per_call: int) -> Case:
    """So many steps of training; the time is that of one."""
    recipe = load_recipe("scratch")
    recipe = replace(recipe, gradients=gradients, batch_size=batch_size, steps_per_call=steps_per_call)
    return Case(Training(prepared(recipe, steps)), 1 / steps)


if __name__ == "__main__":
    run_command(main)
