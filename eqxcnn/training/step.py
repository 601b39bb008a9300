"""One training step as a pure function: `(setup, train state, batch) -> train state`."""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from ..forward_pass import forward
from ..optim.losses import FunctionLoss, Loss, MixedLabels, Targets
from ..optim.optimizers import apply_optimizer
from ..types import BatchLogits, Images, Key, ModelState, Network
from .inputs import Batch, make_input, step_keys
from .setup import Setup, ValueAndGrad
from .state import Sums, TrainState

__all__ = ["autodiff", "cast_floats", "mean_loss", "train_step", "train_steps"]

_CROSS_ENTROPY = Loss()


def mean_loss(
    model: Network,
    state: ModelState,
    images: Images,
    targets: Targets,
    key: Key,
    loss: Loss | FunctionLoss = _CROSS_ENTROPY,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, ""], tuple[ModelState, BatchLogits]]:
    """Returns a batch's mean loss, and the pair of the new state and the logits.

    The network computes in `dtype`. Parameters are cast inside this function, so gradients have the dtype of the
    parameters; state, loss and logits are in float32.
    """
    model, images = cast_floats((model, images), dtype)
    # The dtypes are read before the forward pass, because a used `eqx.nn.State` cannot be read again.
    dtypes = jax.tree.map(jnp.result_type, state)
    logits, new_state = forward(model, state, images, key=key)
    logits = logits.astype(jnp.float32)
    return loss(logits, targets), (_cast_state(new_state, dtypes), logits)


def autodiff(loss: Loss | FunctionLoss = _CROSS_ENTROPY, dtype: DTypeLike = jnp.float32) -> ValueAndGrad:
    """Returns a function that computes `mean_loss` and its gradients by automatic differentiation."""
    return eqx.filter_value_and_grad(partial(mean_loss, loss=loss, dtype=dtype), has_aux=True)


def cast_floats(tree: PyTree, dtype: DTypeLike) -> Any:
    """Casts every floating-point array of a pytree."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def _cast_state(state: ModelState, dtypes: PyTree) -> ModelState:
    """Casts the state to `dtypes`, since a third-party layer may return its state in the dtype of its weights."""
    return jax.tree.map(lambda leaf, dtype: leaf if leaf.dtype == dtype else leaf.astype(dtype), state, dtypes)


def train_step(setup: Setup, train: TrainState, batch: Batch) -> TrainState:
    """Runs one step: input, forward, backward, update, sums of metrics.

    All randomness is a function of `setup.key`, `train.step` and an image's row, so a resumed run needs no saved
    generator state.
    """
    # The arrays are taken before the forward pass, because a used `eqx.nn.State` cannot be read again.
    before = eqx.filter(train, eqx.is_array) if setup.skip_nan else None
    keys = step_keys(setup.key, train.step)
    images, targets = make_input(setup, batch, train.step, keys)
    (loss, (state, logits)), gradients = setup.value_and_grad(train.model, train.state, images, targets, keys.model)
    params = eqx.filter(train.model, eqx.is_inexact_array)
    updates, opt_state = apply_optimizer(setup.optimizer, gradients, train.opt_state, params, loss)
    model, slow, average = eqx.apply_updates(train.model, updates), train.slow, train.average
    if setup.lookahead is not None:
        assert slow is not None, "Lookahead needs a train state that was started with `use_lookahead`"
        slow, (model, state) = setup.lookahead(slow, (model, state), train.step + 1)
    if setup.average is not None:
        assert average is not None, "an average needs a train state that was started with `use_average`"
        average = setup.average(average, (model, state), train.step + 1)
    after = TrainState(model, state, opt_state, train.step + 1, train.sums, slow, average)
    is_finite = jnp.isfinite(loss)
    if before is None:
        return replace(after, sums=_add_batch(train.sums, loss, logits, targets, after.step, is_finite))
    is_finite = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), gradients, is_finite)
    sums = _add_batch(train.sums, loss, logits, targets, after.step, is_finite)
    return _undo_unless(is_finite, replace(after, sums=sums), before, train.sums)


def _add_batch(
    sums: Sums, loss: Float[Array, ""], logits: BatchLogits, targets: Targets, step: Array, is_finite: Array
) -> Sums:
    """Adds a batch to the metrics; a mixed image counts as correct if `targets.own` is predicted."""
    labels = targets.own if isinstance(targets, MixedLabels) else targets
    return sums.add(loss, (logits.argmax(-1) == labels).sum(), labels.size, step, is_finite)


def _undo_unless(is_finite: Bool[Array, ""], after: TrainState, before: PyTree, sums: Sums) -> TrainState:
    """Returns `after` if `is_finite`. Otherwise returns `before`, with the step counted and its failure recorded."""
    failed = replace(after.sums, loss=sums.loss, correct=sums.correct, count=sums.count)
    skipped = eqx.tree_at(lambda train: (train.sums, train.step), before, (failed, after.step))
    arrays, rest = eqx.partition(after, eqx.is_array)
    return eqx.combine(jax.tree.map(partial(jnp.where, is_finite), arrays, skipped), rest)


def train_steps(setup: Setup, train: TrainState, batches: Batch) -> TrainState:
    """Runs `k` steps over batches stacked along a first axis `[k ...]`; a single step runs without a loop."""
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    if jax.tree.leaves(batches)[0].shape[0] == 1:
        return train_step(setup, train, first)
    arrays, rest = eqx.partition(train, eqx.is_array)

    def body(arrays: Any, batch: Batch) -> tuple[Any, None]:
        after = train_step(setup, eqx.combine(arrays, rest), batch)
        return eqx.filter(after, eqx.is_array), None

    return eqx.combine(jax.lax.scan(body, arrays, batches)[0], rest)
