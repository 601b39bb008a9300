"""Normalization of pixels, and the forward pass of a batch: the only vmap over images."""

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Shaped, jaxtyped

from .errors import InputError
from .networks import call_network, check_state
from .types import BatchLogits, Images, Key, ModelState, Network, Pixels

#: The name of the vmapped axis over which BatchNorm computes its batch statistics.
BATCH_AXIS = "batch"


def forward(
    model: Network, state: ModelState, images: Shaped[Array | np.ndarray, "..."], *, key: Key | None
) -> tuple[BatchLogits, ModelState]:
    """Runs a classifier on a batch of images.

    **Arguments:**

    - `model`, `state`: as returned by `zoo.create_model` or a previous call; or any Equinox module that maps one image
      `[h w c]` to scores, with its state or `None`, and with or without a keyword `key`.
    - `images`: `[b h w c]`, floating point, channels last, normalized as the model expects; a NumPy or JAX array.
    - `key`: the PRNG key of the batch, split into one key per image; `None` in eval mode or for a network that uses
      no randomness.

    **Returns:** scores `[b classes]`, before softmax, and the new state.

    **Raises:** `InputError` for images of another shape or dtype, or for a network whose state is missing.
    """
    _check_batch(images)
    check_state(model, state)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"`images` of dtype {images.dtype} must be floating point: apply `eqxcnn.normalize` to pixels")
    return _forward(model, state, _to_jax(images), key)


@jaxtyped(typechecker=beartype)
def _forward(model: Network, state: ModelState, images: Images, key: Key | None) -> tuple[BatchLogits, ModelState]:
    keys = None if key is None else jax.random.split(key, images.shape[0])
    run = jax.vmap(
        lambda image, state, key: call_network(model, image, state, key=key),
        in_axes=(0, None, None if key is None else 0),
        out_axes=(0, None),
        axis_name=BATCH_AXIS,
    )
    return run(images, state, keys)


def normalize(
    images: Shaped[Array | np.ndarray, "..."],
    mean: Float[Array | np.ndarray, " _"],
    std: Float[Array | np.ndarray, " _"],
) -> Images:
    """Returns `(image - mean) / std`, the input that a classifier expects; divides `uint8` pixels by 255 first.

    **Arguments:**

    - `images`: `[b h w c]`, `uint8` or floating point in [0, 1]; a NumPy or JAX array.
    - `mean`, `std`: mean and standard deviation of the training images per channel, on the scale [0, 1].

    **Raises:** `InputError` for images of another shape or dtype.
    """
    _check_batch(images)
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"`images` of dtype {images.dtype} must be uint8, or floating point in [0, 1]")
    if not mean.shape == std.shape == images.shape[-1:]:
        raise InputError(
            f"`images` of shape {images.shape} have {images.shape[-1]} channels, and `mean` and `std` have "
            f"{mean.size} and {std.size} numbers: give one number per channel, and images channels last"
        )
    return _normalize(_to_jax(images), _to_jax(mean), _to_jax(std))


@jaxtyped(typechecker=beartype)
def _normalize(images: Pixels | Images, mean: Float[Array, " c"], std: Float[Array, " c"]) -> Images:
    if images.dtype == jnp.uint8:
        images = images.astype(mean.dtype) / 255
    # Explicit axes, because `jax_numpy_rank_promotion="raise"` forbids implicit ones.
    return (images - mean[None, None, None]) / std[None, None, None]


def _check_batch(images: Shaped[Array | np.ndarray, "..."]) -> None:
    if images.ndim != 4:
        hint = "; for one image give `images[None]`" if images.ndim == 3 else ""
        raise InputError(f"`images` of shape {images.shape} must be (batch, height, width, channels){hint}")


def _to_jax(array: Array | np.ndarray) -> Array:
    return jnp.asarray(array) if isinstance(array, np.ndarray) else array
