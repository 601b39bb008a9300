"""Checks the user's own parts before the first step, by tracing them with the shapes of the run."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from ..augment import ContextAugment
from ..errors import InputError
from ..forward_pass import BATCH_AXIS
from ..metrics import Metric
from ..networks import call_network
from ..optim.averages import Weights
from ..optim.losses import FunctionLoss, MixedLabels
from ..optim.optimizers import Optimizer, apply_optimizer
from ..recipe import Recipe
from ..types import AugmentContext, Key, ModelState, Network
from ..weights.tensors import named_slots
from .builders import compute_dtype
from .identity import qualified_name
from .parts import Parts
from .state import TrainState
from .step import cast_floats

__all__ = ["check_augment", "check_loss", "check_metrics", "check_network", "check_parts"]


def check_parts(
    recipe: Recipe,
    parts: Parts,
    train: TrainState,
    optimizer: Optimizer,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> None:
    """Checks the user's own parts with the shapes of a run.

    **Arguments:**

    - `train`: the structure of the train state.
    - `optimizer`: the run's optimizer, which contains the user's optimizer if the user passed one.
    - `image_shape`: height, width and channels of the data.

    **Raises:** `InputError` for a part that returns a wrong type or shape, or raises an error.
    """
    if parts.model is not None:
        check_network((train.model, train.state), image_shape, num_classes, compute_dtype(recipe))
    if parts.loss is not None:
        check_loss(parts.loss, recipe.batch_size, num_classes, is_mixed=bool(recipe.mixup or recipe.cutmix))
    if parts.optimizer is not None:
        _check_optimizer(f"`optimizer` (`{qualified_name(parts.optimizer)}`)", train, optimizer)
    check_metrics(parts.metrics, recipe.batch_size, num_classes)
    _check_saved(train)


def check_network(
    weights: Weights, image_shape: tuple[int, int, int], num_classes: int, dtype: DTypeLike = jnp.float32
) -> None:
    """Checks that the user's network maps one image to one score per class, in training mode and in eval mode.

    **Arguments:**

    - `weights`: the network and its state, or their structure.
    - `image_shape`: height, width and channels of the data.
    - `dtype`: the dtype that the network computes in.

    **Raises:** `InputError` if the network raises an error, has complex weights, or returns anything but floating-point
    scores of shape `[classes]`.
    """
    what = f"`model` (`{qualified_name(weights[0])}`)"
    for name, slot in named_slots(weights[0]).items():
        if jnp.issubdtype(slot.dtype, jnp.complexfloating):
            raise InputError(f"{what} has complex weights, such as {slot.dtype} `{name}`: keep two real arrays instead")

    def run(model: Network, state: ModelState, key: Key | None) -> tuple[Any, ModelState]:
        # Calls the network in the way that training and evaluation call it, but without assumptions about the result.
        images = jnp.zeros((1, *image_shape), jnp.float32)
        model, images = (model, images) if key is None else cast_floats((model, images), dtype)
        call = partial(call_network, model, state=state, key=key)
        return jax.vmap(call, out_axes=(0, None), axis_name=BATCH_AXIS)(images)

    where = f"an image of shape {image_shape}, channels last"
    hint = partial(_hint_at_network, precision=jnp.dtype(dtype).name)
    logits, _ = _trace(what, where, hint, run, *weights, jax.random.key(0))
    network, state = eqx.nn.inference_mode(weights[0]), weights[1]
    _trace(f"{what} in eval mode", "a float32 image without a key", _no_hint, run, network, state, None)
    shape, found = getattr(logits, "shape", None), getattr(logits, "dtype", bool)
    if shape != (1, num_classes):
        raise InputError(
            f"{what} returns {'no array' if shape is None else f'an array of shape {shape[1:]}'} for one "
            f"image, but the data have {num_classes} classes: return {num_classes} scores"
        )
    if not jnp.issubdtype(found, jnp.floating):
        raise InputError(f"{what} returns scores of dtype {found}: return floating-point scores")


def check_loss(loss: Callable[..., Any], batch_size: int, num_classes: int, is_mixed: bool) -> None:
    """Checks that the user's loss maps a batch of logits and labels to a loss.

    **Arguments:**

    - `is_mixed`: whether images are mixed; the loss must then return one number per image.

    **Raises:** `InputError` if the loss raises an error, or returns a result of the wrong type or shape.
    """
    logits = jax.ShapeDtypeStruct((batch_size, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    share = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    targets: Any = MixedLabels(labels, labels, share) if is_mixed else labels  # pyright: ignore[reportArgumentType]
    where = f"logits of shape {logits.shape} and labels of shape {labels.shape}"
    _trace(f"`loss` (`{qualified_name(loss)}`)", where, _no_hint, FunctionLoss(loss), logits, targets)


def check_augment(augment: Callable[..., Any], image_shape: tuple[int, int, int]) -> None:
    """Checks that the user's augmentation maps an image to an image of the same shape.

    **Raises:** `InputError` if the augmentation raises an error, or returns anything but a floating-point image of the
    same shape.
    """
    what, image = f"`augment` (`{qualified_name(augment)}`)", jax.ShapeDtypeStruct(image_shape, jnp.float32)
    more = (AugmentContext(jax.random.key(0), jnp.int32(0)),) if isinstance(augment, ContextAugment) else ()
    found = _trace(what, f"an image of shape {image_shape}", _no_hint, augment, image, jax.random.key(0), *more)
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", bool)
    if shape != image_shape or not jnp.issubdtype(dtype, jnp.floating):
        returned = "no array" if shape is None else f"{dtype} of shape {shape}"
        raise InputError(f"{what} returned {returned}: return a floating-point image in [0, 1] of shape {image_shape}")


def check_metrics(metrics: Mapping[str, Metric], batch_size: int, num_classes: int) -> None:
    """Checks that the sums of the user's metrics can be computed.

    **Raises:** `InputError` naming the metric, if its `sums` raises an error or is not hashable.
    """
    logits = jax.ShapeDtypeStruct((batch_size, num_classes), jnp.float32)
    labels, mask = (jax.ShapeDtypeStruct((batch_size,), dtype) for dtype in (jnp.int32, jnp.bool_))
    for name, metric in metrics.items():
        try:
            hash(metric.sums)
        except TypeError as error:
            raise InputError(f"`sums` of the metric `{name}` is not hashable: wrap it in a function") from error
        where = f"logits of shape {logits.shape}, labels and a mask"
        _trace(f"`sums` of the metric `{name}`", where, _no_hint, metric.sums, logits, labels, mask)


def _check_saved(train: TrainState) -> None:
    """Refuses PRNG keys in the train state, because checkpoint files hold numbers only.

    **Raises:** `InputError` naming the array.
    """
    for name, slot in named_slots(train).items():
        if jnp.issubdtype(slot.dtype, jax.dtypes.prng_key):
            raise InputError(
                f"`{name}` is a PRNG key, which cannot be saved: store its `jax.random.key_data` instead, or a key "
                "made by `jax.random.PRNGKey`"
            )


def _check_optimizer(what: str, train: TrainState, optimizer: Optimizer) -> None:
    """Checks that an optimizer can compute updates from the gradients, the optimizer state and the loss."""

    def update(model: Network, opt_state: PyTree) -> PyTree:
        params = eqx.filter(model, eqx.is_inexact_array)
        return apply_optimizer(optimizer, params, opt_state, params, jnp.zeros(()))

    _trace(what, "gradients of this model", _hint_at_optimizer, update, train.model, train.opt_state)


def _trace(what: str, where: str, hint: Callable[[Exception], str], function: Callable[..., Any], *inputs: Any) -> Any:
    """Traces a user's function and returns the structure of its result; turns its errors into `InputError`."""
    try:
        return eqx.filter_eval_shape(function, *inputs)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{what} fails on {where}, with {type(error).__name__}: {reason}{hint(error)}") from error


def _no_hint(error: Exception) -> str:
    is_concrete = isinstance(error, jax.errors.JAXTypeError)
    return " (it is compiled, so it must compute with `jax.numpy` instead of NumPy or Python)" if is_concrete else ""


def _hint_at_optimizer(error: Exception) -> str:
    del error
    return " (it must take gradients, state and parameters; the loss, as `value`, is the only extra argument)"


def _hint_at_network(error: Exception, precision: str) -> str:
    if isinstance(error, NameError) and "axis name" in str(error):
        return f' (the batch axis is called "{BATCH_AXIS}": build BatchNorm with `axis_name="{BATCH_AXIS}"`)'
    if isinstance(error, jax.errors.JAXTypeError):
        return _no_hint(error)
    if precision != "float32":
        return f" (its weights are cast to {precision}: set `precision: float32` to keep them in float32)"
    return " (wrap a network that takes channels first in `eqxcnn.ChannelsFirst`)"
