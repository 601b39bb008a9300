"""Recomputes BatchNorm's running statistics for averaged weights, since no training step ran with these weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..forward_pass import forward
from ..layers import BatchNorm
from ..runtime.compile import async_jit
from ..types import ModelState, Network
from .inputs import Batch, make_input, step_keys
from .job import Job, count_steps
from .setup import Setup
from .state import TrainState

__all__ = ["recompute_batch_stats"]


def recompute_batch_stats(job: Job, train: TrainState) -> TrainState:
    """Replaces the weights by their average, with running statistics from one more pass over the training images.

    Each statistic becomes the mean of its values on all batches, as in torch's `update_bn`, which sets `momentum=None`
    (Izmailov et al. 2018, section 3.2). The images are augmented as in training. A model without BatchNorm layers (this
    library's or Equinox's) needs no such pass.
    """
    model, state = train.averaged
    averaged = replace(train, model=model, state=state, average=None)
    if not any(map(_is_training_norm, jax.tree.leaves(model, is_leaf=_is_training_norm))):
        return averaged
    model = jax.tree.map(_keep_last_batch, model, is_leaf=_is_training_norm)
    run: Callable[..., Any] = async_jit(_run_batch) if job.recipe.jit else _run_batch
    total, count, epoch = None, 0, job.epochs
    for call in job.all_batches(epoch):
        for index in range(count_steps(call)):
            batch = jax.tree.map(lambda leaf, index=index: leaf[index], call)
            if job.devices.mesh is None:
                batch = jax.tree.map(jnp.asarray, batch)
            batch = job.devices.split(batch, axis=0)
            found = run(job.setup, model, state, batch, jnp.int32(epoch * job.steps_per_epoch + count))
            numbers = eqx.filter(found, eqx.is_inexact_array)
            total = numbers if total is None else jax.tree.map(jnp.add, total, numbers)
            count += 1
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    state = eqx.combine(mean, eqx.filter(state, eqx.is_inexact_array, inverse=True))
    return replace(averaged, state=_end_correction(averaged.model, state))


def _run_batch(setup: Setup, model: PyTree, state: ModelState, batch: Batch, step: jax.Array) -> ModelState:
    keys = step_keys(setup.key, step)
    images, _ = make_input(setup, batch, step, keys)
    return forward(model, state, images, key=keys.model)[1]


def _keep_last_batch(node: PyTree) -> PyTree:
    """Returns a BatchNorm layer with the last batch's statistics as its running statistics; other nodes are
    unchanged."""
    if not _is_training_norm(node):
        return node
    # Our BatchNorm multiplies the new statistics by `momentum`; Equinox's BatchNorm multiplies the old statistics by
    # `momentum`. This field is static, so `eqx.tree_at` cannot replace it.
    momentum = 1.0 if isinstance(node, BatchNorm) else 0.0
    copy = object.__new__(type(node))
    for name in node.__dataclass_fields__:
        object.__setattr__(copy, name, momentum if name == "momentum" else getattr(node, name))
    return copy


def _end_correction(model: Network, state: ModelState) -> ModelState:
    """Sets the batch counters of Equinox's BatchNorm layers to 0, so that the running statistics are used as they are,
    without division by `1 - momentum**count`."""
    for node in jax.tree.leaves(model, is_leaf=_is_training_norm):
        if state is not None and isinstance(node, eqx.nn.BatchNorm) and node.batch_counter is not None:
            state = state.set(node.batch_counter, jnp.zeros_like(state.get(node.batch_counter)))
    return state


def _is_training_norm(node: PyTree) -> bool:
    return isinstance(node, BatchNorm | eqx.nn.BatchNorm) and not node.inference
