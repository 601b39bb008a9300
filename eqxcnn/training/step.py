"""One training step, as a pure function of (what is fixed, what is learnt, a batch)."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree, UInt8

from .. import manual
from ..forward import forward, normalize
from ..types import Augment, BatchLogits, Classifier, Images, Key, Labels, Pixels
from .losses import cross_entropy

#: `(model, state, images, labels, key) -> ((loss, (state, logits)), gradients)`, the loss being the batch's mean.
ValueAndGrad: TypeAlias = Callable[
    [Classifier, eqx.nn.State, Images, Labels, Key],
    tuple[tuple[Float[Array, ""], tuple[eqx.nn.State, BatchLogits]], PyTree],
]
#: What optax calls a gradient transformation, or the pair of functions in its place that `eqxcnn.manual` has.
Optimizer: TypeAlias = optax.GradientTransformation | manual.Optimizer
#: Rows of the images that live on the device, or a batch of images and labels when they do not.
Batch: TypeAlias = Int[Array, "*k b"] | tuple[UInt8[Array, "*k b h w c"], Int[Array, "*k b"]]


class Setup(eqx.Module):
    """What stays fixed over a run: the arguments of the step that are functions, and the arrays it only reads."""

    value_and_grad: ValueAndGrad = eqx.field(static=True)
    optimizer: Optimizer = eqx.field(static=True)
    augment: Augment | None = eqx.field(static=True)
    key: Key
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    data: tuple[Pixels, Labels] | None


class Sums(eqx.Module):
    """Sums over examples, kept on the device and divided once when somebody reads them."""

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    count: Int[Array, ""]

    @staticmethod
    def zero() -> "Sums":
        """Nothing summed yet."""
        return Sums(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


class TrainState(eqx.Module):
    """All that a step changes, so all that a checkpoint holds: `sums` are those of the epoch under way."""

    model: Classifier
    state: eqx.nn.State
    opt_state: PyTree
    step: Int[Array, ""]
    sums: Sums

    @staticmethod
    def start(model: Classifier, state: eqx.nn.State, optimizer: Optimizer) -> "TrainState":
        """The state before the first step."""
        opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        return TrainState(model, state, opt_state, jnp.zeros((), jnp.int32), Sums.zero())


def mean_loss(
    model: Classifier, state: eqx.nn.State, images: Images, labels: Labels, key: Key, label_smoothing: float = 0.0
) -> tuple[Float[Array, ""], tuple[eqx.nn.State, BatchLogits]]:
    """A batch's mean cross-entropy, with the new state and the scores beside it."""
    logits, state = forward(model, state, images, key=key)
    return cross_entropy(logits, labels, label_smoothing).mean(), (state, logits)


def autodiff(label_smoothing: float = 0.0) -> ValueAndGrad:
    """The value-and-gradient function of `mean_loss` by automatic differentiation."""
    return eqx.filter_value_and_grad(partial(mean_loss, label_smoothing=label_smoothing), has_aux=True)


def train_step(setup: Setup, train: TrainState, batch: Batch) -> TrainState:
    """One step: take the batch, augment, normalise, forward, backward, update, sum the metrics.

    All randomness is a function of `(setup.key, train.step)`, so that a resumed run needs no generator's state.
    """
    augment_key, model_key = jax.random.split(jax.random.fold_in(setup.key, train.step))
    pixels, labels = batch if isinstance(batch, tuple) else _take(setup.data, batch)
    images = normalize(_augmented(setup.augment, pixels, augment_key), setup.mean, setup.std)
    (loss, (state, logits)), gradients = setup.value_and_grad(train.model, train.state, images, labels, model_key)
    params = eqx.filter(train.model, eqx.is_inexact_array)
    updates, opt_state = setup.optimizer.update(gradients, train.opt_state, params)
    model = eqx.apply_updates(train.model, updates)
    sums = Sums(
        loss=train.sums.loss + loss * labels.size,
        correct=train.sums.correct + (logits.argmax(-1) == labels).sum(),
        count=train.sums.count + labels.size,
    )
    return TrainState(model, state, opt_state, train.step + 1, sums)


def train_steps(setup: Setup, train: TrainState, batches: Batch) -> TrainState:
    """`k` steps in one call, over batches stacked along a first axis; a single one without a loop around it."""
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    if jax.tree.leaves(batches)[0].shape[0] == 1:
        return train_step(setup, train, first)
    arrays, rest = eqx.partition(train, eqx.is_array)

    def body(arrays: Any, batch: Batch) -> tuple[Any, None]:
        after = train_step(setup, eqx.combine(arrays, rest), batch)
        return eqx.filter(after, eqx.is_array), None

    return eqx.combine(jax.lax.scan(body, arrays, batches)[0], rest)


def _take(
    data: tuple[UInt8[Array, "n h w c"], Int[Array, " n"]] | None, rows: Int[Array, " b"]
) -> tuple[Pixels, Labels]:
    """The images and labels of these rows, all of which exist."""
    assert data is not None, "rows were given to a step whose setup holds no data"
    images, labels = data
    return images.at[rows].get(mode="promise_in_bounds"), labels.at[rows].get(mode="promise_in_bounds")


def _augmented(augment: Augment | None, pixels: Pixels, key: Key) -> Pixels | Images:
    """Each image changed under a key of its own."""
    if augment is None:
        return pixels
    return jax.vmap(augment)(pixels.astype(jnp.float32) / 255, jax.random.split(key, pixels.shape[0]))
