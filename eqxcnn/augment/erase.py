"""Augmentations that erase a random part: factories of functions of one image `[h w c]` and a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..errors import InputError
from ..types import Augment, Image, Key

#: Number of boxes to draw before the image is left unchanged.
_TRIES = 10


def cutout(size: int, fill: float | int = 0.5) -> Augment:
    """Fills a square around a random pixel, clipped at the border (arXiv:1708.04552, section 3).

    **Arguments:**

    - `size`: the square's side in pixels; around row `y`, it covers `size` rows from row `y - size // 2` on.
    - `fill`: the new value of its pixels, from 0 to 1. The paper uses the data set's mean, which normalizes to 0.
    """
    if size < 1:
        raise InputError(f"`size` (={size}) must be a side of at least 1 pixel.")
    if not 0 <= fill <= 1:
        raise InputError(f"`fill` (={fill}) must be a pixel value from 0 to 1.")

    def fill_square(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        start = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - size // 2
        is_covered = box_mask(height, width, start, jnp.array([size, size]))
        return jnp.where(is_covered[..., None], jnp.asarray(fill, image.dtype), image)

    return fill_square


def random_erasing(
    p: float | int = 0.5,
    scale: tuple[float | int, float | int] = (0.02, 0.4),
    ratio: tuple[float | int, float | int] = (0.3, 10 / 3),
    noise: bool = True,
) -> Augment:
    """Replaces a box by noise, with probability `p` (Zhong et al. 2020, arXiv:1708.04896, section 3).

    The box is the first of ten draws that fits into the image; if none fits, the image stays unchanged.

    **Arguments:**

    - `p`: the probability that an image is changed.
    - `scale`: the smallest and largest area of the box, as a fraction of the image's.
    - `ratio`: the smallest and largest height divided by width.
    - `noise`: whether each value is drawn from [0, 1]; otherwise the box becomes black.
    """
    if not 0 <= p <= 1:
        raise InputError(f"`p` (={p}) must be a probability from 0 to 1.")
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
        is_erased = box_mask(height, width, start, box) & fits.any() & jax.random.bernoulli(coin, p)
        new = jax.random.uniform(noise_key, image.shape, image.dtype) if noise else jnp.zeros_like(image)
        return jnp.where(is_erased[..., None], new, image)

    return erase


def box_mask(height: int, width: int, start: Int[Array, "2"], size: Int[Array, "2"]) -> Bool[Array, "h w"]:
    """Returns the mask of a box of this height and width, whose first row and column may lie outside the image."""
    row, column = jnp.arange(height)[:, None] - start[0], jnp.arange(width) - start[1]
    return (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
