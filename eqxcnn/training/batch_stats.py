"""The running statistics of BatchNorm for weights that no batch of training has gone through."""

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
from .job import Job
from .step import Batch, Setup, TrainState, model_input


def recompute_batch_stats(job: Job, train: TrainState) -> TrainState:
    """The averaged weights in the place of the last ones, with statistics of one more pass over the training images.

    They are the mean over the batches of each batch's own, of images augmented as in training: what torch's `update_bn`
    finds for layers with `momentum=None` (Izmailov et al. 2018, section 3.2). Nothing is passed where no layer has any.
    """
    model, state = train.averaged
    after = replace(train, model=model, state=state, average=None)
    if not any(map(_moves, jax.tree.leaves(model, is_leaf=_moves))):
        return after
    alone = jax.tree.map(_forgetful, model, is_leaf=_moves)
    step: Callable[..., Any] = async_jit(_batch_state) if job.recipe.jit else _batch_state
    total, count, epoch = None, 0, job.epochs
    for calls in job.all_batches(epoch):
        for at in range(jax.tree.leaves(calls)[0].shape[0]):
            batch = jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), calls)
            found = step(job.setup, alone, state, batch, jnp.int32(epoch * job.steps_per_epoch + count))
            numbers = eqx.filter(found, eqx.is_inexact_array)
            total = numbers if total is None else jax.tree.map(jnp.add, total, numbers)
            count += 1
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    return replace(after, state=eqx.combine(mean, eqx.filter(state, eqx.is_inexact_array, inverse=True)))


def _batch_state(setup: Setup, model: PyTree, state: eqx.nn.State, batch: Batch, step: jax.Array) -> eqx.nn.State:
    augment_key, model_key = jax.random.split(jax.random.fold_in(setup.key, step))
    images, _ = model_input(setup, batch, step, augment_key)
    return forward(model, state, images, key=model_key)[1]


def _forgetful(node: PyTree) -> PyTree:
    """A layer whose running statistics become those of the batch."""
    if not _moves(node):
        return node
    # The momentum is part of the structure, which `eqx.tree_at` leaves as it is; so a new layer gets what this one has.
    new = BatchNorm(node.num_features, node.eps, 1.0, axis_name=node.axis_name)
    return eqx.tree_at(_parts, new, _parts(node), is_leaf=lambda each: each is None)


def _parts(norm: BatchNorm) -> tuple[Any, ...]:
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _moves(node: PyTree) -> bool:
    return isinstance(node, BatchNorm) and not node.inference
