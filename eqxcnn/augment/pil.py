"""Pillow's operations on one image `[h w c]` of whole numbers 0 to 255, inside jit and equal to Pillow's.

To the bit, but for `blend` and `autocontrast`, which are now and then off by one: where the value before it is cut off
is next to a whole number, Pillow's order of rounding decides, and a compiler's is another.

They come in three kinds that one pass can hold at once, so that a policy which draws one of many costs three and not
all of them under `vmap`: where each pixel is taken from (`affine`), what each value becomes (a table of 256 a channel),
and how much of the image there is beside a gray or smoothed one (`blend`).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

#: Values of one image, from 0 to 255.
Levels = Int[Array, "h w c"]
#: What each of 256 values becomes, a channel.
Table = Int[Array, "256 c"]


def affine(image: Levels, fixed: Int[Array, "6"]) -> Levels:
    """`Image.transform(size, AFFINE, matrix)` by the nearest pixel, black where there is none.

    **Arguments:**

    - `fixed`: `fixed_matrix(matrix)`.
    """
    height, width, _ = image.shape
    a, b, c, d, e, f = fixed
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    column, row = (c + y * b + x * a) >> 16, (f + y * e + x * d) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return jnp.where(inside[:, :, None], image[row.clip(0, height - 1), column.clip(0, width - 1)], 0)


def fixed_matrix(matrix: Sequence[float | int]) -> Int[np.ndarray, "6"]:
    """Where the middle of the pixel at `(x, y)` comes from, `(a x + b y + c, d x + e y + f)`, in 16 binary places."""
    a, b, c, d, e, f = matrix
    places = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2]) * 65536
    return np.floor(places + 0.5).astype(np.int32)


def rotation(degrees: float | int, height: int, width: int) -> tuple[float, ...]:
    """The matrix of `Image.rotate(degrees)`: counter-clockwise around the middle."""
    angle = -math.radians(degrees)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


def gray(image: Levels) -> Int[Array, "h w"]:
    """`Image.convert("L")`: ITU-R 601-2 luma, in 16 binary places; a gray image's only channel as it is."""
    if image.shape[2] != 3:
        return image[:, :, 0]
    return (image @ jnp.array([19595, 38470, 7471]) + 0x8000) >> 16


def smooth(image: Levels) -> Levels:
    """`Image.filter(SMOOTH)`: five times each pixel and its eight neighbors, by 13; the border stays as it is."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set((2 * sums + 13) // 26)


def blend(base: Int[Array, "*d"], image: Int[Array, "*d"], factor: Float[Array, ""]) -> Int[Array, "*d"]:
    """`Image.blend(base, image, factor)`, cut off to whole numbers from 0 to 255."""
    mixed = base.astype(jnp.float32) + factor * (image - base).astype(jnp.float32)
    return mixed.clip(0, 255).astype(jnp.int32)


def brightness(factor: Float[Array, ""], channels: int) -> Table:
    """`ImageEnhance.Brightness`: 0 is black, 1 the image."""
    levels = _levels(channels)
    return blend(jnp.zeros_like(levels), levels, factor)


def contrast(image: Levels, factor: Float[Array, ""]) -> Table:
    """`ImageEnhance.Contrast`: 0 is the image's mean gray, 1 the image."""
    luma = gray(image)
    mean = (2 * luma.sum() + luma.size) // (2 * luma.size)
    levels = _levels(image.shape[2])
    return blend(jnp.broadcast_to(mean, levels.shape), levels, factor)


def posterize(bits: Int[Array, ""], channels: int) -> Table:
    """`ImageOps.posterize`: the first `bits` of each value, from 0 to 8."""
    return _levels(channels) & ~((1 << (8 - bits)) - 1)


def solarize(threshold: Float[Array, ""], channels: int) -> Table:
    """`ImageOps.solarize`: values from `threshold` on are inverted."""
    levels = _levels(channels)
    return jnp.where(levels.astype(jnp.float32) < threshold, levels, 255 - levels)


def invert(channels: int) -> Table:
    """`ImageOps.invert`."""
    return 255 - _levels(channels)


def autocontrast(image: Levels) -> Table:
    """`ImageOps.autocontrast`: the darkest value of each channel becomes 0 and the lightest 255."""
    low, high = image.min((0, 1)), image.max((0, 1))
    levels = _levels(image.shape[2])
    stretched = (levels - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, stretched.clip(0, 255), levels)


def equalize(image: Levels) -> Table:
    """`ImageOps.equalize`: values spread so that each channel has about as many pixels of every value."""
    return jax.vmap(_equalized, in_axes=-1, out_axes=-1)(image.reshape(-1, image.shape[2]))


def _equalized(values: Int[Array, " n"]) -> Int[Array, "256"]:
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (len(values) - counts[values.max()]) // 255
    before = jnp.cumsum(counts) - counts
    spread = ((step // 2 + before) // jnp.maximum(step, 1)).clip(0, 255)
    return jnp.where(step > 0, spread, jnp.arange(256))


def looked_up(image: Levels, table: Table) -> Levels:
    """Each value replaced by the table's."""
    return jnp.take_along_axis(table, image.reshape(-1, image.shape[2]), 0).reshape(image.shape)


def _levels(channels: int) -> Table:
    return jnp.broadcast_to(jnp.arange(256)[:, None], (256, channels))
