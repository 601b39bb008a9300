"""`python -m benchmarks.seeds`: a training step of five seeds, vectorized in one program or run one after another.

The times exclude compilation, which is needed only once if one program trains all seeds. On accelerators,
`python -m eqxcnn.train --seeds` uses one program for any network; on a CPU, only for networks without convolutions.
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

from .mlp_epoch import EpochTrainer, prepare_job
from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark


@dataclass(frozen=True)
class Options:
    """Measure steps of several seeds on random MNIST-shaped pixels, both in one program and one seed after another."""

    models: tuple[str, ...] = ("mlp", "lenet")
    """Recipes whose steps are timed."""
    seeds: int = 5
    """Number of seeds."""
    steps: int = 100
    """Steps of each seed per measurement."""
    rounds: int = 9
    """Measurements of each case."""
    out: Path = RESULTS / "seeds.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.seeds", args=arguments)
    cases, ratios = {}, []
    for name in options.models:
        recipe = replace(load_recipe(name), steps_per_call=1)
        jobs = [prepare_job(replace(recipe, seed=seed), options.steps) for seed in range(options.seeds)]
        vmapped, sequential = f"{name}, one program", f"{name}, one seed after another"
        cases[vmapped] = Case(make_vmapped_epoch(jobs), 1 / options.steps)
        # All seeds run the same program, so one seed's time is multiplied.
        cases[sequential] = Case(EpochTrainer(jobs[0]), options.seeds / options.steps)
        ratios.append(Ratio(vmapped, sequential))
    title = f"A step for each of {options.seeds} seeds with the recipes' batch sizes, on random pixels of MNIST's shape"
    run_benchmark(Benchmark("seeds", title, arguments, "ms", cases, ratios), options.rounds, options.out)


def make_vmapped_epoch(jobs: Sequence[Job]) -> Callable[[], Any]:
    """Returns a function that trains all jobs for one epoch in one program; weights carry over between calls."""
    steps, setup = compile_steps(jobs[0].recipe, train_steps_of_seeds), stack_setups(jobs)
    train = stack_trains([job.make_start() for job in jobs])

    def train_epoch() -> Any:
        nonlocal train
        for batches in zip(*(job.batches(0, 0) for job in jobs), strict=True):
            train = steps(setup, train, np.stack([np.asarray(batch) for batch in batches]))
        return jax.block_until_ready(train.step)

    return train_epoch


if __name__ == "__main__":
    run_command(main)
