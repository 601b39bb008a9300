"""Random parts of an image blanked out: each factory gives a function of one image `[h w c]` and a key, shape kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..errors import InputError
from ..types import Augment, Image, Key

#: How often a box is drawn before the image is left as it is.
_TRIES = 10


def cutout(size: int, fill: float | int = 0.5) -> Augment:
    """Blanks a square whose center is any pixel, so that it may reach over the border (arXiv:1708.04552, section 3).

    **Arguments:**

    - `size`: the square's side in pixels; rows `y - size // 2` to `y - size // 2 + size - 1` around row `y`.
    - `fill`: what its pixels become, from 0 to 1. The paper fills with the data set's mean, after normalization 0.
    """
    if size < 1:
        raise InputError(f"`size` (={size}) is a square's side in pixels: choose 1 or more.")
    if not 0 <= fill <= 1:
        raise InputError(f"`fill` (={fill}) is a pixel in [0, 1]: choose it from 0 to 1.")

    def blank(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        start = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - size // 2
        hidden = inside_box(height, width, start, jnp.array([size, size]))
        return jnp.where(hidden[..., None], jnp.asarray(fill, image.dtype), image)

    return blank


def random_erasing(
    p: float | int = 0.5,
    scale: tuple[float | int, float | int] = (0.02, 0.4),
    ratio: tuple[float | int, float | int] = (0.3, 10 / 3),
    noise: bool = True,
) -> Augment:
    """Replaces a box inside the image by noise, with probability `p` (Zhong et al. 2020, arXiv:1708.04896, section 3).

    A box that does not fit is drawn anew, up to ten times; then nothing is replaced.

    **Arguments:**

    - `p`: how likely.
    - `scale`: least and greatest area of the box, as a share of the image's.
    - `ratio`: least and greatest height over width.
    - `noise`: whether each pixel is drawn from [0, 1]; else all become black.
    """
    if not 0 <= p <= 1:
        raise InputError(f"`p` (={p}) is a probability: choose it from 0 to 1.")
    for name, (least, most), top in (("scale", scale, 1), ("ratio", ratio, float("inf"))):
        if not 0 < least <= most <= top:
            raise InputError(f"`{name}` (={(least, most)}) must be a range above 0{' up to 1' * (top == 1)}.")

    def erase(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        coin, area_key, ratio_key, place_key, noise_key = jax.random.split(key, 5)
        area = height * width * jax.random.uniform(area_key, (_TRIES,), minval=scale[0], maxval=scale[1])
        aspect = jax.random.uniform(ratio_key, (_TRIES,), minval=ratio[0], maxval=ratio[1])
        sizes = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], 1).astype(int)
        fits = (sizes < jnp.array([height, width])).all(1)
        box = sizes[fits.argmax()]
        start = jax.random.randint(place_key, (2,), 0, jnp.array([height, width]) - box + 1)
        hidden = inside_box(height, width, start, box) & fits.any() & jax.random.bernoulli(coin, p)
        new = jax.random.uniform(noise_key, image.shape, image.dtype) if noise else jnp.zeros_like(image)
        return jnp.where(hidden[..., None], new, image)

    return erase


def inside_box(height: int, width: int, start: Int[Array, "2"], size: Int[Array, "2"]) -> Bool[Array, "h w"]:
    """Which pixels of an image lie in a box of this height and width, whose first row and column may be outside."""
    row, column = jnp.arange(height)[:, None] - start[0], jnp.arange(width) - start[1]
    return (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
