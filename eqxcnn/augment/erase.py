"""Augmentations that erase a random part: each factory returns a function of one image `[h w c]` and a key."""

from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..errors import InputError
from ..ranges import Range, check_arguments
from ..types import Augment, Image, Key

__all__ = ["Area", "AspectRatio", "Side", "box_mask", "check_order", "cutout", "random_erasing"]

#: A fraction of the image's area.
Area: TypeAlias = Annotated[float, Range(0, 1, excludes_low=True)]
#: The ratio of the two sides of a box: width / height, or height / width.
AspectRatio: TypeAlias = Annotated[float, Range(0.001, 1000)]
#: Height or width of an image, in pixels.
Side: TypeAlias = Annotated[int, Range(1, 4096)]

#: Number of boxes to draw before the image is left unchanged.
_TRIES = 10


@check_arguments
def cutout(size: Annotated[int, Range(1, 4096)], fill: Annotated[float, Range(0, 1)] = 0.5) -> Augment:
    """Fills a square around a random pixel, clipped at the border (arXiv:1708.04552, section 3).

    **Arguments:**

    - `size`: the square's side in pixels; around row `y`, the square covers `size` rows, starting at `y - size // 2`.
    - `fill`: the new value of the square's pixels, from 0 to 1. The paper uses the data set's mean, which normalizes
      to 0.
    """

    def fill_square(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        if size > max(height, width):
            raise InputError(f"`size` (={size}) of `cutout` must be at most the image's {height}x{width}: reduce it")
        start = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - size // 2
        is_covered = box_mask(height, width, start, jnp.array([size, size]))
        return jnp.where(is_covered[..., None], jnp.asarray(fill, image.dtype), image)

    return fill_square


@check_arguments
def random_erasing(
    p: Annotated[float, Range(0, 1)] = 0.5,
    scale: tuple[Area, Area] = (0.02, 0.4),
    ratio: tuple[AspectRatio, AspectRatio] = (0.3, 10 / 3),
    noise: bool = True,
) -> Augment:
    """Replaces a box by noise, with probability `p` (Zhong et al. 2020, arXiv:1708.04896, section 3).

    The box is the first of ten draws that fits into the image; if none fits, the image stays unchanged.

    **Arguments:**

    - `p`: the probability that an image is changed.
    - `scale`: the smallest and largest area of the box, as a fraction of the image's area.
    - `ratio`: the smallest and largest height of the box divided by its width.
    - `noise`: whether each value is drawn from [0, 1]; otherwise the box becomes black.
    """
    check_order(scale=scale, ratio=ratio)

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


def check_order(**pairs: tuple[float, float]) -> None:
    """Refuses a pair whose first number is above its second.

    **Raises:** `InputError` for such a pair; the message names the argument.
    """
    for name, (least, most) in pairs.items():
        if least > most:
            raise InputError(f"`{name}` (={(least, most)}) must give the smallest value before the largest")


def box_mask(height: int, width: int, start: Int[Array, "2"], size: Int[Array, "2"]) -> Bool[Array, "h w"]:
    """Returns the mask `[height width]` of a box with first pixel `start`, which may lie outside the image."""
    row, column = jnp.arange(height)[:, None] - start[0], jnp.arange(width) - start[1]
    return (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
