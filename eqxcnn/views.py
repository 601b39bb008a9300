"""Scores of an image from several views of it, which are right more often than those of the image alone."""

from typing import Literal, TypeAlias

import equinox as eqx
import jax.numpy as jnp

from .forward_pass import forward
from .types import BatchLogits, Classifier, Images

#: The image alone; with its mirror image; with the two, shifted by a pixel both ways, as well.
Views: TypeAlias = Literal["one", "mirror", "mirror_and_shifts"]
#: How many views of an image each is.
NUM_VIEWS: dict[Views, int] = {"one": 1, "mirror": 2, "mirror_and_shifts": 6}


def view_logits(model: Classifier, state: eqx.nn.State, images: Images, views: Views = "one") -> BatchLogits:
    """Scores `[b classes]`, averaged over views of each image `[b h w c]`; the model is in eval mode.

    With `mirror_and_shifts` half of the weight is on the image where it is, and half on two crops of the image padded
    by one reflected pixel, those at the padded image's top left and bottom right; each is averaged with its mirror
    image (Jordan 2024, section 3.5).
    """
    seen, weights = [images], [1.0]
    if views == "mirror_and_shifts":
        height, width = images.shape[1:3]
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        seen += [padded[:, edge : edge + height, edge : edge + width] for edge in (0, 2)]
        weights = [0.5, 0.25, 0.25]
    if views != "one":
        seen = [each for view in seen for each in (view, view[:, :, ::-1])]
        weights = [weight / 2 for weight in weights for _ in range(2)]
    # One call, so that the network is compiled once: in eval mode images do not look at their neighbors.
    logits = forward(model, state, jnp.concatenate(seen), key=None)[0]
    each = logits.reshape(len(seen), len(images), -1)
    return (jnp.asarray(weights, logits.dtype)[:, None, None] * each).sum(0)
