"""Normalization of pixels, and the forward pass of a batch: the only vmap over images."""

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from .types import BatchLogits, Classifier, Images, Key, Pixels

#: The name of the vmapped axis over which BatchNorm computes its batch statistics.
BATCH_AXIS = "batch"


@jaxtyped(typechecker=beartype)
def forward(
    model: Classifier, state: eqx.nn.State, images: Images, *, key: Key | None
) -> tuple[BatchLogits, eqx.nn.State]:
    """Runs a classifier on a batch of images.

    **Arguments:**

    - `model`, `state`: as returned by `zoo.create_model` or a previous call.
    - `images`: `[b h w c]`, floating point, channels last, normalized as the model expects.
    - `key`: the PRNG key of the batch, split into one key per image; `None` in eval mode or for a network that uses
      no randomness.

    **Returns:** scores `[b classes]`, before softmax, and the new state.
    """
    keys = None if key is None else jax.random.split(key, images.shape[0])
    run = jax.vmap(
        lambda image, state, key: model(image, state, key=key),
        in_axes=(0, None, None if key is None else 0),
        out_axes=(0, None),
        axis_name=BATCH_AXIS,
    )
    return run(images, state, keys)


@jaxtyped(typechecker=beartype)
def normalize(images: Pixels | Images, mean: Float[Array, " c"], std: Float[Array, " c"]) -> Images:
    """Returns `(image - mean) / std`, the input that a classifier expects; divides `uint8` pixels by 255 first.

    **Arguments:**

    - `images`: `[b h w c]`, `uint8` or floating point in [0, 1].
    - `mean`, `std`: mean and standard deviation of the training images per channel, on the scale [0, 1].
    """
    if images.dtype == jnp.uint8:
        images = images.astype(mean.dtype) / 255
    # Explicit axes, because `jax_numpy_rank_promotion="raise"` forbids implicit ones.
    return (images - mean[None, None, None]) / std[None, None, None]
