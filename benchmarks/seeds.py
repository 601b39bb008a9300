"""`python -m benchmarks.seeds`: training steps of five seeds in one program against those of one seed after another.

Without compilation, which one program does once. Where this says that one program is faster, `--seeds` has it so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from eqxcnn.cli import run_command
from eqxcnn.training import Job, load_recipe
from eqxcnn.training.epochs import compile_steps
from eqxcnn.training.vmapped_seeds import stack_setups, stack_trains, train_steps_of_seeds

from .mlp_epoch import Training, prepared
from .timing import RESULTS, Benchmark, Case, Ratio, run


@dataclass(frozen=True)
class Options:
    """Times steps of several seeds on random pixels of MNIST's shape, in one program and one seed after another."""

    models: tuple[str, ...] = ("mlp", "lenet")
    """The recipes whose steps are timed."""
    seeds: int = 5
    """How many seeds."""
    steps: int = 100
    """Steps that are timed together, of each seed."""
    rounds: int = 9
    """How often everything is timed."""
    out: Path = RESULTS / "seeds.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.seeds", args=arguments)
    cases, ratios = {}, []
    for name in options.models:
        recipe = replace(load_recipe(name), steps_per_call=1)
        jobs = [prepared(replace(recipe, seed=seed), options.steps) for seed in range(options.seeds)]
        together, apart = f"{name}, one program", f"{name}, one after another"
        cases[together] = Case(in_one_program(jobs), 1 / options.steps)
        # One stands for all: they are the same program.
        cases[apart] = Case(Training(jobs[0]), options.seeds / options.steps)
        ratios.append(Ratio(together, apart))
    title = f"A step of {options.seeds} seeds each, batches as in the recipes, random pixels in MNIST's shape"
    run(Benchmark("seeds", title, arguments, "ms", cases, ratios), options.rounds, options.out)


def in_one_program(jobs: Sequence[Job]) -> Callable[[], Any]:
    """An epoch of all jobs, to be called again and again."""
    steps, setup = compile_steps(jobs[0].recipe, train_steps_of_seeds), stack_setups(jobs)
    train = stack_trains([job.make_start() for job in jobs])

    def epoch() -> Any:
        nonlocal train
        for batches in zip(*(job.batches(0, 0) for job in jobs), strict=True):
            train = steps(setup, train, np.stack([np.asarray(each) for each in batches]))
        return jax.block_until_ready(train.step)

    return epoch


if __name__ == "__main__":
    run_command(main)
