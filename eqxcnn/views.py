"""A classifier's scores in eval mode, on each image alone or averaged over several views of it."""

from typing import Literal, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .forward_pass import forward, normalize
from .types import BatchLogits, Images, ModelState, Network, Pixels

__all__ = ["NUM_VIEWS", "Views", "eval_logits", "view_logits"]

#: `one`: the image alone. `mirror`: also its mirror image. `mirror_and_shifts`: the image, two shifted crops, and the
#: mirror images of these three.
Views: TypeAlias = Literal["one", "mirror", "mirror_and_shifts"]
#: Number of views per image.
NUM_VIEWS: dict[Views, int] = {"one": 1, "mirror": 2, "mirror_and_shifts": 6}


def eval_logits(
    model: Network,
    state: ModelState,
    images: Pixels | Images,
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    views: Views = "one",
) -> BatchLogits:
    """Normalizes images and returns the model's scores in eval mode.

    All evaluation code calls this function, inside its own jit.

    **Arguments:**

    - `model`, `state`: in training or eval mode.
    - `images`: `[b h w c]`, `uint8` or floating point in [0, 1].
    - `mean`, `std`: the normalization per channel; see `normalize`.
    - `views`: the views of each image over which the scores are averaged; see `view_logits`.

    **Returns:** scores `[b classes]`, before softmax.
    """
    return view_logits(eqx.nn.inference_mode(model), state, normalize(images, mean, std), views)


def view_logits(model: Network, state: ModelState, images: Images, views: Views = "one") -> BatchLogits:
    """Returns scores averaged over views of each image.

    `mirror_and_shifts` pads the image by one reflected pixel, and crops the top left and bottom right corners of the
    padded image. The unshifted image has half of the weight, and each crop a quarter. The scores of each of these three
    are averaged with the scores of its mirror image (Jordan 2024, section 3.5).

    **Arguments:**

    - `model`, `state`: in eval mode.
    - `images`: `[b h w c]`, normalized.

    **Returns:** scores `[b classes]`, before softmax.
    """
    crops, weights = [images], [1.0]
    if views == "mirror_and_shifts":
        height, width = images.shape[1:3]
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        crops += [padded[:, offset : offset + height, offset : offset + width] for offset in (0, 2)]
        weights = [0.5, 0.25, 0.25]
    if views != "one":
        crops = [view for crop in crops for view in (crop, crop[:, :, ::-1])]
        weights = [weight / 2 for weight in weights for _ in range(2)]
    # One call for all views compiles the network only once. In eval mode, images of a batch do not affect each other.
    logits = forward(model, state, jnp.concatenate(crops), key=None)[0]
    # Not `len(images)`: the number of images may be symbolic.
    per_view = logits.reshape(len(crops), images.shape[0], logits.shape[-1])
    return (jnp.asarray(weights, logits.dtype)[:, None, None] * per_view).sum(0)
