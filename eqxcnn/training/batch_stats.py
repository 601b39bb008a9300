"""Recomputes BatchNorm's running statistics for averaged weights, which no training batch has passed through."""

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
from ..types import ModelState
from .inputs import Batch, make_input, step_keys
from .job import Job, count_steps
from .setup import Setup
from .state import TrainState


def recompute_batch_stats(job: Job, train: TrainState) -> TrainState:
    """Replaces the weights by their average, with running statistics from one more pass over the training images.

    Each statistic is its mean over all batches, of images augmented as in training: what torch's `update_bn` computes
    for layers with `momentum=None` (Izmailov et al. 2018, section 3.2). A model without BatchNorm needs no pass.
    """
    model, state = train.averaged
    averaged = replace(train, model=model, state=state, average=None)
    if not any(map(_is_training_norm, jax.tree.leaves(model, is_leaf=_is_training_norm))):
        return averaged
    # With momentum 1 the running statistics are those of the last batch.
    model = jax.tree.map(_set_momentum_to_one, model, is_leaf=_is_training_norm)
    run: Callable[..., Any] = async_jit(_run_batch) if job.recipe.jit else _run_batch
    total, count, epoch = None, 0, job.epochs
    for call in job.all_batches(epoch):
        for index in range(count_steps(call)):
            batch = jax.tree.map(lambda leaf, index=index: jnp.asarray(leaf[index]), call)
            found = run(job.setup, model, state, batch, jnp.int32(epoch * job.steps_per_epoch + count))
            numbers = eqx.filter(found, eqx.is_inexact_array)
            total = numbers if total is None else jax.tree.map(jnp.add, total, numbers)
            count += 1
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    return replace(averaged, state=eqx.combine(mean, eqx.filter(state, eqx.is_inexact_array, inverse=True)))


def _run_batch(setup: Setup, model: PyTree, state: ModelState, batch: Batch, step: jax.Array) -> ModelState:
    keys = step_keys(setup.key, step)
    images, _ = make_input(setup, batch, step, keys)
    return forward(model, state, images, key=keys.model)[1]


def _set_momentum_to_one(node: PyTree) -> PyTree:
    """Replaces a BatchNorm layer by one with momentum 1 and the same arrays."""
    if not _is_training_norm(node):
        return node
    # `eqx.tree_at` cannot replace the momentum, which is a static field; so a new layer gets the old one's arrays.
    norm = BatchNorm(node.num_features, node.eps, 1.0, axis_name=node.axis_name)
    return eqx.tree_at(_arrays, norm, _arrays(node), is_leaf=lambda leaf: leaf is None)


def _arrays(norm: BatchNorm) -> tuple[Any, ...]:
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _is_training_norm(node: PyTree) -> bool:
    return isinstance(node, BatchNorm) and not node.inference
