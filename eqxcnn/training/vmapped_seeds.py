"""Runs that differ in nothing but their seed, trained in one program: the step under one more `vmap`."""

from collections.abc import Sequence
from contextlib import ExitStack
from operator import itemgetter
from time import monotonic
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..layers import Conv
from ..runs.folder import Run
from ..runs.logs.backends import open_logs
from ..runs.progress import TrainingProgress
from ..runtime.interrupts import Interrupted, Interrupts
from .epochs import EpochRunner, Result, compiled_steps
from .job import Job
from .step import Batch, Setup, TrainState, train_steps


def can_vmap_seeds(job: Job) -> bool:
    """Whether one program for many seeds does the same as one run after another, and sooner.

    On a CPU a convolution with a kernel for each seed is one of many groups, which XLA is slow at there.
    """
    recipe = job.recipe
    # What stops sooner, reads images in an order of its own or is traced by itself has a program of its own.
    is_alike = job.setup.data is not None and recipe.jit and not recipe.early_stop_epochs and not recipe.profile
    return is_alike and (jax.default_backend() != "cpu" or not has_convolutions(job))


def has_convolutions(job: Job) -> bool:
    """Whether the job's model has a convolution anywhere."""
    nodes = jax.tree.leaves(job.start.model, is_leaf=lambda node: isinstance(node, Conv))
    return any(isinstance(node, Conv) for node in nodes)


def train_together(jobs: Sequence[Job], runs: Sequence[Run], started: float) -> list[Result]:
    """Trains jobs of one recipe but for the seed from their start, each into its own run.

    **Raises:** `InputError` as `fit` does; `Interrupted` when each of them has saved.
    """
    first, recipe, count = jobs[0], jobs[0].recipe, len(jobs)
    steps = compiled_steps(recipe, steps_of_all)
    setup, train = setup_of_all(jobs), stacked([job.start for job in jobs])
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        progress = stack.enter_context(TrainingProgress(first.steps, first.steps_per_epoch, recipe.batch_size))
        logs = [stack.enter_context(open_logs(recipe.log, run)) for run in runs]
        all_epochs = [
            EpochRunner(job, run, log, interrupts, progress, label=f"seed {job.recipe.seed}")
            for job, run, log in zip(jobs, runs, logs, strict=True)
        ]
        for job, log in zip(jobs, logs, strict=True):
            log.start(job)

        def save_in_time() -> None:
            stopped = interrupts.received
            if any(epochs.is_time() for epochs in all_epochs):
                for epochs, one in zip(all_epochs, unstacked(train, count), strict=True):
                    epochs.save(one)
            if stopped is not None:
                raise Interrupted(stopped, runs[0].folder.parent)

        for epoch in range(first.epochs):
            began, done = monotonic(), epoch * first.steps_per_epoch
            for batches in zip(*(job.batches(epoch, 0) for job in jobs), strict=True):
                train = steps(setup, train, np.stack(batches))
                done += len(batches[0])
                progress.step(done, train)
                if done < first.steps_after(epoch + 1):
                    save_in_time()
            jax.block_until_ready(train.sums)
            seconds = monotonic() - began
            images = (done - epoch * first.steps_per_epoch) * recipe.batch_size
            singles = zip(all_epochs, unstacked(train, count), strict=True)
            train = stacked([epochs.end(epoch, one, images, seconds) for epochs, one in singles])
            save_in_time()
        ends = zip(all_epochs, unstacked(train, count), strict=True)
        return [epochs.finish(one, started, 0) for epochs, one in ends]


def stacked(trains: Sequence[TrainState]) -> TrainState:
    """The train states of models of one structure as one, each of its arrays with a first axis for them."""
    arrays, rest = eqx.partition(trains[0], eqx.is_array)
    # Leaf by leaf: each model's state has markers of its own, so that to JAX the structures differ.
    leaves = [jax.tree.leaves(eqx.filter(train, eqx.is_array)) for train in trains]
    whole = [jnp.stack(same) for same in zip(*leaves, strict=True)]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), whole), rest)


def unstacked(train: TrainState, count: int) -> list[TrainState]:
    """`stacked` undone, but that all are of the first one's structure."""
    arrays, rest = eqx.partition(train, eqx.is_array)
    return [eqx.combine(jax.tree.map(itemgetter(place), arrays), rest) for place in range(count)]


def setup_of_all(jobs: Sequence[Job]) -> Setup:
    """What stays fixed: the first job's, with the key and the normalization of each."""
    stacks = [jnp.stack(same) for same in zip(*(per_seed_leaves(job.setup) for job in jobs), strict=True)]
    return eqx.tree_at(per_seed_leaves, jobs[0].setup, tuple(stacks))


def per_seed_leaves(setup: Setup) -> tuple[Any, Any, Any]:
    """What is another with another seed: the images held out are, so their statistics are."""
    return setup.key, setup.mean, setup.std


def steps_of_all(setup: Setup, train: TrainState, batches: Batch) -> TrainState:
    """`train_steps` for each seed; the images are there once for all."""
    shared = jax.tree.map(lambda leaf: None, setup)
    axes = eqx.tree_at(per_seed_leaves, shared, (0, 0, 0), is_leaf=lambda leaf: leaf is None)
    return eqx.filter_vmap(train_steps, in_axes=(axes, eqx.if_array(0), 0))(setup, train, batches)
