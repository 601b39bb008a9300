"""Trains runs that differ only in their seeds, in one program: a `vmap` of the training step over the seeds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from operator import itemgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..layers import Conv
from ..runs.folder import Run
from ..runs.logs import open_logs
from ..runs.progress import TrainingProgress
from ..runtime.interrupts import Interrupts
from ..runtime.profile import Profiler
from .epochs import EpochLoop, compile_steps
from .inputs import Batch
from .job import Job
from .result import Result
from .runner import EpochRunner
from .setup import Setup
from .state import TrainState
from .step import train_steps

__all__ = [
    "VmappedSeeds",
    "can_vmap_seeds",
    "has_convolutions",
    "per_seed_leaves",
    "stack_setups",
    "stack_trains",
    "train_steps_of_seeds",
    "train_vmapped",
]


def can_vmap_seeds(job: Job) -> bool:
    """Returns whether one program for all seeds gives the results of separate runs and takes less time.

    On a CPU, a convolution with one kernel per seed becomes a grouped convolution, which XLA computes slowly.
    """
    recipe = job.recipe
    # Early stopping, callbacks, streaming, tracing and several processes need a separate program for each run.
    is_alike = job.setup.data is not None and recipe.jit and not recipe.early_stop_epochs and not recipe.profile
    is_alike = is_alike and not job.parts.callbacks and job.peers.count == 1
    return is_alike and (jax.default_backend() != "cpu" or not has_convolutions(job))


def has_convolutions(job: Job) -> bool:
    """Returns whether the job's model contains a convolution layer of eqxcnn or Equinox."""
    kinds = (Conv, eqx.nn.Conv, eqx.nn.ConvTranspose)
    nodes = jax.tree.leaves(job.template.model, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(node, kinds) for node in nodes)


class VmappedSeeds:
    """One program for several jobs of the same recipe, which differ only in their seeds."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.job, self._jobs = jobs[0], jobs
        self._setup, self._steps = (
            stack_setups(jobs),
            compile_steps(jobs[0].recipe, train_steps_of_seeds, jobs[0].devices),
        )

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Yields the row numbers `[seeds k b]` for each call, starting at step `first` of an epoch."""
        rows: Iterator[Any] = zip(*(job.batches(epoch, first) for job in self._jobs), strict=True)
        return map(np.stack, rows)

    def count_steps(self, batches: np.ndarray) -> int:
        """Returns the number of steps in the batches of one call."""
        return batches.shape[1]

    def run(self, train: TrainState, batches: np.ndarray) -> TrainState:
        """Runs the steps of one call, for all seeds."""
        return self._steps(self._setup, train, self.job.devices.split(batches, axis=2))

    def split(self, train: TrainState) -> list[TrainState]:
        """Returns the train state of each seed, all with the pytree structure of the first."""
        arrays, rest = eqx.partition(train, eqx.is_array)
        return [eqx.combine(jax.tree.map(itemgetter(index), arrays), rest) for index in range(len(self._jobs))]

    def join(self, trains: Sequence[TrainState]) -> TrainState:
        """Stacks train states along a new first axis."""
        return self.job.devices.place_state(stack_trains(trains))


def train_vmapped(jobs: Sequence[Job], runs: Sequence[Run], started: float) -> list[Result]:
    """Trains jobs of the same recipe with different seeds, each from its first step and in its own run folder.

    **Raises:** `InputError` in the same cases as `fit`; `Interrupted` after Ctrl-C or SIGTERM, once each run has a
    checkpoint.
    """
    program, recipe = VmappedSeeds(jobs), jobs[0].recipe
    train = program.join([job.make_start() for job in jobs])
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        progress = stack.enter_context(TrainingProgress(jobs[0].steps, jobs[0].steps_per_epoch, recipe.batch_size))
        profiler = stack.enter_context(Profiler(runs[0].folder / "profile", 0))
        logs = [stack.enter_context(open_logs(recipe.log, run)) for run in runs]
        runners = [
            EpochRunner(job, run, log, progress, label=f"seed {job.recipe.seed}")
            for job, run, log in zip(jobs, runs, logs, strict=True)
        ]
        for runner, each in zip(runners, program.split(train), strict=True):
            runner.start(each)
        trains = EpochLoop(program, runners, interrupts, progress, profiler, runs[0].folder.parent).run(train, 0)
        return [runner.finish(each, started, 0) for runner, each in zip(runners, trains, strict=True)]


def stack_trains(trains: Sequence[TrainState]) -> TrainState:
    """Stacks the arrays of train states with the same structure along a new first axis."""
    arrays, rest = eqx.partition(trains[0], eqx.is_array)
    # Leaves are stacked one by one: each model's `eqx.nn.State` has its own markers, so the tree structures differ.
    leaves = [jax.tree.leaves(eqx.filter(train, eqx.is_array)) for train in trains]
    stacked = [jnp.stack(same) for same in zip(*leaves, strict=True)]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), stacked), rest)


def stack_setups(jobs: Sequence[Job]) -> Setup:
    """Returns the first job's setup, but with the keys, means and standard deviations of all seeds stacked along a new
    first axis."""
    stacks = [jnp.stack(same) for same in zip(*(per_seed_leaves(job.setup) for job in jobs), strict=True)]
    return eqx.tree_at(per_seed_leaves, jobs[0].setup, tuple(stacks))


def per_seed_leaves(setup: Setup) -> tuple[Any, Any, Any]:
    """Returns the leaves that depend on the seed: the key, and the mean and standard deviation of the training images,
    since the seed chooses the images that are held out."""
    return setup.key, setup.mean, setup.std


def train_steps_of_seeds(setup: Setup, train: TrainState, batches: Batch) -> TrainState:
    """Runs `train_steps` for each seed; the images are shared."""
    shared = jax.tree.map(lambda leaf: None, setup)
    axes = eqx.tree_at(per_seed_leaves, shared, (0, 0, 0), is_leaf=lambda leaf: leaf is None)
    return eqx.filter_vmap(train_steps, in_axes=(axes, eqx.if_array(0), 0))(setup, train, batches)
