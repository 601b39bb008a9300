"""Normalization of pixels, and the forward pass of a batch. Only this module vmaps over images."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Shaped, jaxtyped

from .errors import InputError
from .networks import call_network, check_state
from .types import BatchLogits, Images, Key, ModelState, Network, Pixels

__all__ = ["BATCH_AXIS", "check_pixels", "forward", "forward_features", "normalize"]

#: To measure strides, an image is made taller by this number of pixels, a multiple of every usual stride.
_GROWTH = 64 * 3 * 5 * 7
#: Tolerance around [0, 1], because rounding errors in resizing can give values slightly outside.
_OVERSHOOT = 1e-3
#: The name of the vmapped axis over which BatchNorm computes its batch statistics.
BATCH_AXIS = "batch"


def forward(
    model: Network, state: ModelState, images: Shaped[Array | np.ndarray, "..."], *, key: Key | None
) -> tuple[BatchLogits, ModelState]:
    """Runs a classifier on a batch of images.

    **Arguments:**

    - `model`: a model from `zoo.create_model`, or any other Equinox module that maps one image `[h w c]` to scores.
      Such a module need not take the keyword `key`.
    - `state`: as returned by `zoo.create_model` or by the previous call; `None` for a module without state.
    - `images`: `[b h w c]`, floating point, channels last, normalized as the model expects; a NumPy or JAX array.
    - `key`: the PRNG key of the batch, split into one key per image; `None` in eval mode or for a network that uses
      no randomness.

    **Returns:** scores `[b classes]`, before softmax, and the new state.

    **Raises:** `InputError` for images of a wrong shape or dtype, or for a network whose state is missing.
    """
    _check_inputs(model, state, images)
    return _forward(model, state, _to_jax(images), key)


def _check_inputs(model: Network, state: ModelState, images: Shaped[Array | np.ndarray, "..."]) -> None:
    _check_batch(images)
    check_state(model, state)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"`images` of dtype {images.dtype} must be floating point: apply `eqxcnn.normalize` to pixels")


@jaxtyped(typechecker=beartype)
def _forward(model: Network, state: ModelState, images: Images, key: Key | None) -> tuple[BatchLogits, ModelState]:
    return _over_batch(lambda image, state, key: call_network(model, image, state, key=key), state, images, key)


def _over_batch(function: Callable[..., Any], state: ModelState, images: Images, key: Key | None) -> Any:
    """Applies `vmap` to a function that takes one image, the state and a key, and returns arrays and the new state."""
    keys = None if key is None else jax.random.split(key, images.shape[0])
    run = jax.vmap(function, in_axes=(0, None, None if key is None else 0), out_axes=(0, None), axis_name=BATCH_AXIS)
    return run(images, state, keys)


def forward_features(
    model: Network,
    state: ModelState,
    images: Shaped[Array | np.ndarray, "..."],
    *,
    key: Key | None = None,
    at: str | int | Sequence[str | int] | None = None,
) -> tuple[dict[str, Float[Array, "b _ _ _"]], ModelState]:
    """Runs the backbone of a classifier on a batch of images and returns its feature maps.

    **Arguments:**

    - `model`, `state`, `images`, `key`: as for `forward`. The model must have a method `features`, as every zoo model
      does.
    - `at`: the maps to return: a name, a stride in pixels of the image, or several of these; by default all maps. A
      stride that several stages share selects the last of these stages.

    **Returns:** the maps `[b h/s w/s c]` under the names `"stage1"`, `"stage2"`, ..., from the first stage to the last,
        and the new state. The strides `s` of a zoo model are `zoo.card(name).strides`.

    **Raises:** `InputError` for a model without feature maps, for an unknown name or stride, and whenever `forward`
        raises it.
    """
    _check_inputs(model, state, images)
    maps, new = _forward_features(model, state, _to_jax(images), key)
    if not maps:
        raise InputError(f"a `{type(model).__qualname__}` has no feature maps: use `forward`")
    named = {f"stage{number}": each for number, each in enumerate(maps, 1)}
    if at is None:
        return named, new
    stages = {**{name: name for name in named}, **_stage_by_stride(model, state, images.shape, list(named), key)}
    wanted = [at] if isinstance(at, str | int) else at
    for each in wanted:
        if each not in stages:
            known = ", ".join(repr(stage) for stage in stages)
            raise InputError(f"`at` (={each!r}) is not a stage of this `{type(model).__qualname__}`: it has {known}")
    chosen = {stages[each] for each in wanted}
    return {name: each for name, each in named.items() if name in chosen}, new


@jaxtyped(typechecker=beartype)
def _forward_features(
    model: Network, state: ModelState, images: Images, key: Key | None
) -> tuple[tuple[Float[Array, "b _ _ _"], ...], ModelState]:
    if not _has_maps(model):
        raise InputError(
            f"a `{type(model).__qualname__}` has no feature maps: give its class a method `features(image, state, *, "
            "key)` that returns a tuple of maps and the new state"
        )
    network: Any = model
    # The networks of the zoo take a state, which is empty without BatchNorm.
    given = eqx.nn.State(model) if state is None else state
    maps, new = _over_batch(lambda image, state, key: network.features(image, state, key=key), given, images, key)
    return maps, None if state is None else new


def _has_maps(model: Network) -> bool:
    """Returns whether the class of a network has a method `features(image, state, *, key)`.

    Class and signature are checked, because a submodule or an unrelated method may also be named `features`.
    """
    try:
        inspect.signature(getattr(type(model), "features", None)).bind(model, None, None, key=None)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return False
    return True


def _stage_by_stride(
    model: Network, state: ModelState, shape: tuple[int, ...], names: Sequence[str], key: Key | None
) -> dict[int, str]:
    """Returns, for each stride, the name of the last stage with that stride.

    The stride is measured with a taller image: if the image grows by `n` strides, the map grows by `n` rows. A model
    that accepts only one image size splits the image into patches, so its stride is image height / map height.
    """
    b, h, w, c = shape

    def heights(height: int) -> list[int]:
        images = jax.ShapeDtypeStruct((b, height, w, c), jnp.float32)
        return [each.shape[1] for each in eqx.filter_eval_shape(_forward_features, model, state, images, key)[0]]

    small = heights(h)
    try:
        strides = [round(_GROWTH / (large - own)) for own, large in zip(small, heights(h + _GROWTH), strict=True)]
    except (TypeError, ValueError):
        strides = [round(h / own) for own in small]
    return dict(zip(strides, names, strict=True))


def normalize(
    images: Shaped[Array | np.ndarray, "..."],
    mean: Float[Array | np.ndarray, " _"],
    std: Float[Array | np.ndarray, " _"],
) -> Images:
    """Returns `(image - mean) / std`, the input that a classifier expects; divides `uint8` pixels by 255 first.

    **Arguments:**

    - `images`: `[b h w c]`, `uint8` or floating point in [0, 1]; a NumPy or JAX array.
    - `mean`, `std`: mean and standard deviation of the training images per channel, on the scale [0, 1].

    **Raises:** `InputError` for images of a wrong shape or dtype.
    """
    _check_batch(images)
    _check_dtype(images, "`images`")
    if not mean.shape == std.shape == images.shape[-1:]:
        raise InputError(
            f"`images` of shape {images.shape} have {images.shape[-1]} channels, and `mean` and `std` have "
            f"{mean.size} and {std.size} numbers: give one number per channel, and images with channels last"
        )
    return _normalize(_to_jax(images), _to_jax(mean), _to_jax(std))


@jaxtyped(typechecker=beartype)
def _normalize(images: Pixels | Images, mean: Float[Array, " c"], std: Float[Array, " c"]) -> Images:
    if images.dtype == jnp.uint8:
        images = images.astype(mean.dtype) / 255
    # Explicit axes, because `jax_numpy_rank_promotion="raise"` forbids implicit ones.
    return (images - mean[None, None, None]) / std[None, None, None]


def check_pixels(images: Shaped[Array | np.ndarray, "..."], what: str = "`images`") -> None:
    """Checks the dtype of images; outside jit and vmap, where the values are known, also checks their range.

    **Arguments:**

    - `images`: of any shape.
    - `what`: the subject of error messages.

    **Raises:** `InputError` unless images are `uint8`, or floating point in [0, 1].
    """
    _check_dtype(images, what)
    if images.dtype == jnp.uint8 or images.size == 0:
        return
    try:
        low, high = float(images.min()), float(images.max())
    except jax.errors.ConcretizationTypeError:
        return
    if not -_OVERSHOOT <= low <= high <= 1 + _OVERSHOOT:  # This comparison is false for NaN too.
        hint = "divide them by 255, or give uint8" if high > 1 else "scale or replace them"
        raise InputError(f"{what} in floating point have values from {low:g} to {high:g}, not from 0 to 1: {hint}")


def _check_dtype(images: Shaped[Array | np.ndarray, "..."], what: str) -> None:
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{what} of dtype {images.dtype} must be uint8, or floating point in [0, 1]")


def _check_batch(images: Shaped[Array | np.ndarray, "..."]) -> None:
    if images.ndim != 4:
        hint = "; for one image give `images[None]`" if images.ndim == 3 else ""
        raise InputError(f"`images` of shape {images.shape} must be (batch, height, width, channels){hint}")


def _to_jax(array: Array | np.ndarray) -> Array:
    return jnp.asarray(array) if isinstance(array, np.ndarray) else array
