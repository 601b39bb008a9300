"""What happens to a batch on its way into a classifier: pixels are normalized, then vmapped image by image."""

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from .types import BatchLogits, Classifier, Images, Key, Pixels

#: The name under which BatchNorm finds the other images of its batch.
BATCH_AXIS = "batch"


@jaxtyped(typechecker=beartype)
def forward(
    model: Classifier, state: eqx.nn.State, images: Images, *, key: Key | None
) -> tuple[BatchLogits, eqx.nn.State]:
    """Runs a classifier on a batch.

    **Arguments:**

    - `model`, `state`: as `zoo.create_model` or a previous call gave them.
    - `images`: `[b h w c]`, floating point, channels last, normalized as the model expects.
    - `key`: the batch's randomness, split into one key an image; `None` for a network without any, or in eval mode.

    **Returns:** scores `[b classes]` and the new state.
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
    """Images as a classifier takes them: `(image - mean) / std`, where `uint8` pixels are first divided by 255.

    **Arguments:**

    - `images`: `uint8` `[b h w c]`, or floating point in [0, 1].
    - `mean`, `std`: of the training images, a channel, on the scale [0, 1].
    """
    if images.dtype == jnp.uint8:
        images = images.astype(mean.dtype) / 255
    return (images - mean) / std
