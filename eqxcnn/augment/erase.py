"""Random parts of an image blanked out: each factory gives a function of one image `[h w c]` and a key, shape kept."""

import jax
import jax.numpy as jnp

from ..errors import InputError
from ..types import Augment, Image, Key


def cutout(size: int, fill: float | int = 0.5) -> Augment:
    """Blanks a square whose centre is any pixel, so that it may reach over the border (arXiv:1708.04552, section 3).

    **Arguments:**

    - `size`: the square's side in pixels; rows `y - size // 2` to `y - size // 2 + size - 1` around row `y`.
    - `fill`: what its pixels become, from 0 to 1. The paper fills with the data set's mean, after normalisation 0.
    """
    if size < 1:
        raise InputError(f"`size` (={size}) is a square's side in pixels: choose 1 or more.")
    if not 0 <= fill <= 1:
        raise InputError(f"`fill` (={fill}) is a pixel in [0, 1]: choose it from 0 to 1.")

    def blank(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        start = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - size // 2
        row, column = jnp.arange(height)[:, None] - start[0], jnp.arange(width) - start[1]
        hidden = (row >= 0) & (row < size) & (column >= 0) & (column < size)
        return jnp.where(hidden[..., None], jnp.asarray(fill, image.dtype), image)

    return blank
