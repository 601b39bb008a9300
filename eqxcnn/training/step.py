"""One training step, as a pure function of (what is fixed, what is learnt, a batch)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt8

from .. import manual
from ..augment import ContextAugment, Mix, partners
from ..forward_pass import forward, normalize
from ..optim.average import Average
from ..optim.lookahead import Lookahead, Weights
from ..optim.losses import Loss, MixedLabels, Targets
from ..types import AugmentContext, BatchLogits, Classifier, Image, Images, Key, Labels, Pixels

#: `(model, state, images, targets, key) -> ((loss, (state, logits)), gradients)`, the loss being the batch's mean.
ValueAndGrad: TypeAlias = Callable[
    [Classifier, eqx.nn.State, Images, Targets, Key],
    tuple[tuple[Float[Array, ""], tuple[eqx.nn.State, BatchLogits]], PyTree],
]
#: What optax calls a gradient transformation, or the pair of functions in its place that `eqxcnn.manual` has.
Optimizer: TypeAlias = optax.GradientTransformation | manual.Optimizer
#: Rows of the images that live on the device, or a batch of images, labels and rows when they do not.
Batch: TypeAlias = Int[Array, "*k b"] | tuple[UInt8[Array, "*k b h w c"], Int[Array, "*k b"], Int[Array, "*k b"]]

_CROSS_ENTROPY = Loss()


class Setup(eqx.Module):
    """What stays fixed over a run: the arguments of the step that are functions, and the arrays it only reads."""

    value_and_grad: ValueAndGrad = eqx.field(static=True)
    optimizer: Optimizer = eqx.field(static=True)
    augment: ContextAugment | None = eqx.field(static=True)
    lookahead: Lookahead | None = eqx.field(static=True)
    steps_per_epoch: int = eqx.field(static=True)
    key: Key
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    data: tuple[Pixels, Labels] | None
    mix: Mix | None = eqx.field(static=True, default=None)
    average: Average | None = eqx.field(static=True, default=None)
    skips_nan: bool = eqx.field(static=True, default=False)


class Sums(eqx.Module):
    """Sums over examples, kept on the device and divided once when somebody reads them.

    - `failed`, `first_failed`: how many steps gave a loss that is no number, and the first of them, counted from 1.
    """

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    count: Int[Array, ""]
    failed: Int[Array, ""]
    first_failed: Int[Array, ""]

    @staticmethod
    def zero() -> "Sums":
        """Nothing summed yet."""
        return Sums(jnp.zeros((), jnp.float32), *(jnp.zeros((), jnp.int32) for _ in range(4)))

    def plus(
        self, loss: Float[Array, ""], correct: Int[Array, ""], count: int, step: Int[Array, ""], is_finite: Array
    ) -> "Sums":
        """The sums after a step of a batch with this mean loss."""
        is_first = ~is_finite & (self.failed == 0)
        return Sums(
            loss=self.loss + loss * count,
            correct=self.correct + correct,
            count=self.count + count,
            failed=self.failed + ~is_finite,
            first_failed=jnp.where(is_first, step, self.first_failed),
        )


class TrainState(eqx.Module):
    """All that a step changes, so all that a checkpoint holds.

    - `sums`: those of the epoch under way.
    - `slow`: what `Lookahead` keeps of model and state, where there is one.
    - `average`: what `Average` keeps of them.
    """

    model: Classifier
    state: eqx.nn.State
    opt_state: PyTree
    step: Int[Array, ""]
    sums: Sums
    slow: Weights | None
    average: Weights | None = None

    @staticmethod
    def start(
        model: Classifier,
        state: eqx.nn.State,
        optimizer: Optimizer,
        has_lookahead: bool = False,
        has_average: bool = False,
    ) -> "TrainState":
        """The state before the first step."""
        opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        slow = Lookahead.start((model, state)) if has_lookahead else None
        average = Lookahead.start((model, state)) if has_average else None
        return TrainState(model, state, opt_state, jnp.zeros((), jnp.int32), Sums.zero(), slow, average)

    @property
    def averaged(self) -> tuple[Classifier, eqx.nn.State]:
        """Model and state with the average's numbers, where there is one."""
        rest = eqx.filter((self.model, self.state), eqx.is_inexact_array, inverse=True)
        return (self.model, self.state) if self.average is None else eqx.combine(self.average, rest)


def mean_loss(
    model: Classifier,
    state: eqx.nn.State,
    images: Images,
    targets: Targets,
    key: Key,
    loss: Loss = _CROSS_ENTROPY,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, ""], tuple[eqx.nn.State, BatchLogits]]:
    """A batch's mean loss, with the new state and the scores beside it.

    The network computes in `dtype`. Its parameters are cast on the way in, so their gradients come back in the dtype
    that the parameters have; `state` is as it was, and the loss and the scores are in float32.
    """
    model, images = _cast((model, images), dtype)
    logits, state = forward(model, state, images, key=key)
    logits = logits.astype(jnp.float32)
    return loss(logits, targets), (state, logits)


def autodiff(loss: Loss = _CROSS_ENTROPY, dtype: DTypeLike = jnp.float32) -> ValueAndGrad:
    """The value-and-gradient function of `mean_loss` by automatic differentiation."""
    return eqx.filter_value_and_grad(partial(mean_loss, loss=loss, dtype=dtype), has_aux=True)


def _cast(tree: PyTree, dtype: DTypeLike) -> Any:
    """Every floating-point array of a tree in this dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def train_step(setup: Setup, train: TrainState, batch: Batch) -> TrainState:
    """One step: take the batch, augment, normalize, forward, backward, update, sum the metrics.

    All randomness is a function of `(setup.key, train.step)` and an image's row, so that a resumed run needs no
    generator's state.
    """
    # Before anything: a State that has been used cannot be looked at any more.
    before = eqx.filter(train, eqx.is_array) if setup.skips_nan else None
    augment_key, model_key = jax.random.split(jax.random.fold_in(setup.key, train.step))
    images, targets = model_input(setup, batch, train.step, augment_key)
    (loss, (state, logits)), gradients = setup.value_and_grad(train.model, train.state, images, targets, model_key)
    params = eqx.filter(train.model, eqx.is_inexact_array)
    updates, opt_state = _updates(setup.optimizer, gradients, train.opt_state, params, loss)
    model, slow, average = eqx.apply_updates(train.model, updates), train.slow, train.average
    if setup.lookahead is not None:
        assert slow is not None, "lookahead needs a train state that was started with it"
        slow, (model, state) = setup.lookahead(slow, (model, state), train.step + 1)
    if setup.average is not None:
        assert average is not None, "an average needs a train state that was started with it"
        average = setup.average(average, (model, state), train.step + 1)
    labels = targets.own if isinstance(targets, MixedLabels) else targets
    step, correct, is_finite = train.step + 1, (logits.argmax(-1) == labels).sum(), jnp.isfinite(loss)
    after = TrainState(model, state, opt_state, step, train.sums, slow, average)
    if not setup.skips_nan:
        return replace(after, sums=train.sums.plus(loss, correct, labels.size, step, is_finite))
    is_finite = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), gradients, is_finite)
    counted = train.sums.plus(loss, correct, labels.size, step, is_finite)
    uncounted = replace(counted, **{name: getattr(train.sums, name) for name in ("loss", "correct", "count")})
    left = eqx.tree_at(lambda train: (train.sums, train.step), before, (uncounted, step))
    return _chosen(is_finite, replace(after, sums=counted), left)


def _chosen(which: Bool[Array, ""], one: TrainState, other: PyTree) -> TrainState:
    """Each array of one train state or of the other."""
    arrays, rest = eqx.partition(one, eqx.is_array)
    return eqx.combine(jax.tree.map(partial(jnp.where, which), arrays, other), rest)


def _updates(
    optimizer: Optimizer, gradients: PyTree, opt_state: PyTree, params: PyTree, loss: Float[Array, ""]
) -> tuple[PyTree, PyTree]:
    """The optimizer's updates and new state; one that looks at the loss (a plateau's) is told it."""
    if isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return optimizer.update(gradients, opt_state, params, value=loss)
    return optimizer.update(gradients, opt_state, params)


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


def model_input(setup: Setup, batch: Batch, step: Int[Array, ""], key: Key) -> tuple[Images, Targets]:
    """A batch as the model sees it: `[b h w c]` taken, augmented and mixed under `key`, normalized; and its labels."""
    pixels, labels, rows = batch if isinstance(batch, tuple) else _take(setup.data, batch)
    images = _augmented(setup, pixels, rows, step, key)
    if setup.mix is None:
        return normalize(images, setup.mean, setup.std), labels
    floats = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
    mixed, share = setup.mix(floats, jax.random.fold_in(key, 0))
    return normalize(mixed, setup.mean, setup.std), MixedLabels(labels, partners(labels), share)


def _take(
    data: tuple[UInt8[Array, "n h w c"], Int[Array, " n"]] | None, rows: Int[Array, " b"]
) -> tuple[Pixels, Labels, Int[Array, " b"]]:
    """The images and labels of these rows, all of which exist."""
    assert data is not None, "rows were given to a step whose setup holds no data"
    images, labels = data
    return images.at[rows].get(mode="promise_in_bounds"), labels.at[rows].get(mode="promise_in_bounds"), rows


def _augmented(setup: Setup, pixels: Pixels, rows: Int[Array, " b"], step: Int[Array, ""], key: Key) -> Pixels | Images:
    """Each image changed under a key of its own, and told another one that its row has in every epoch."""
    augment = setup.augment
    if augment is None:
        return pixels
    # No step comes to this number, so these keys are of no step.
    of_rows, epoch = jax.random.fold_in(setup.key, jnp.uint32(2**32 - 1)), step // setup.steps_per_epoch

    def changed(image: Image, key: Key, row: Int[Array, ""]) -> Image:
        return augment(image, key, AugmentContext(jax.random.fold_in(of_rows, row), epoch))

    return jax.vmap(changed)(pixels.astype(jnp.float32) / 255, jax.random.split(key, pixels.shape[0]), rows)
