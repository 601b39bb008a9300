"""Pillow's operations inside jit, on one image `[h w c]` of integers 0 to 255.

Results equal Pillow's exactly, except that `blend` and `autocontrast` are sometimes off by one: their
results are truncated to integers, and different rounding errors can put a value on the other side of an integer.

There are three kinds of operations: `affine` moves pixels, a table of 256 values per channel maps values, and `blend`
mixes the image with a gray or smoothed image. Under `vmap`, choosing one of many operations computes all of them.
Instead, each image goes through one operation of each kind, which changes nothing unless it was chosen. This takes the
time of three operations.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

__all__ = [
    "Levels",
    "Table",
    "affine",
    "apply_table",
    "autocontrast",
    "blend",
    "brightness",
    "contrast",
    "equalize",
    "fixed_matrix",
    "gray",
    "invert",
    "posterize",
    "rotation",
    "smooth",
    "solarize",
]

#: Values of one image, from 0 to 255.
Levels = Int[Array, "h w c"]
#: The new value for each of the 256 old values, per channel.
Table = Int[Array, "256 c"]


def affine(image: Levels, fixed: Int[Array, "6"]) -> Levels:
    """Equals `Image.transform(size, AFFINE, matrix)`: nearest pixel, black outside the image.

    **Arguments:**

    - `fixed`: `fixed_matrix(matrix)`.
    """
    height, width, _ = image.shape
    a, b, c, d, e, f = fixed
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    column, row = (c + y * b + x * a) >> 16, (f + y * e + x * d) >> 16
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return jnp.where(is_inside[:, :, None], image[row.clip(0, height - 1), column.clip(0, width - 1)], 0)


def fixed_matrix(matrix: Sequence[float | int]) -> Int[np.ndarray, "6"]:
    """Converts a matrix to fixed point with 16 fractional bits.

    A new pixel with its center at `(x, y)` gets its value from the point `(a x + b y + c, d x + e y + f)`.
    """
    a, b, c, d, e, f = matrix
    scaled = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2]) * 65536
    return np.floor(scaled + 0.5).astype(np.int32)


def rotation(degrees: float | int, height: int, width: int) -> tuple[float, ...]:
    """Returns the matrix of `Image.rotate(degrees)`: counter-clockwise around the center."""
    angle = -math.radians(degrees)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


def gray(image: Levels) -> Int[Array, "h w"]:
    """Equals `Image.convert("L")`: ITU-R 601-2 luma in fixed point; a gray image's channel stays unchanged."""
    if image.shape[2] != 3:
        return image[:, :, 0]
    return (image @ jnp.array([19595, 38470, 7471]) + 0x8000) >> 16


def smooth(image: Levels) -> Levels:
    """Equals `Image.filter(SMOOTH)`: (5 * pixel + its eight neighbors) / 13; the border stays unchanged."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set((2 * sums + 13) // 26)


def blend(base: Int[Array, "*d"], image: Int[Array, "*d"], factor: Float[Array, ""]) -> Int[Array, "*d"]:
    """Equals `Image.blend(base, image, factor)`, clipped to 0 to 255 and truncated to integers."""
    mixed = base.astype(jnp.float32) + factor * (image - base).astype(jnp.float32)
    return mixed.clip(0, 255).astype(jnp.int32)


def brightness(factor: Float[Array, ""], channels: int) -> Table:
    """Returns the table of `ImageEnhance.Brightness`: a factor of 0 gives black, and 1 the original image."""
    levels = _all_levels(channels)
    return blend(jnp.zeros_like(levels), levels, factor)


def contrast(image: Levels, factor: Float[Array, ""]) -> Table:
    """Returns the table of `ImageEnhance.Contrast`: a factor of 0 gives the mean gray, and 1 the original image."""
    luma = gray(image)
    mean = (2 * luma.sum() + luma.size) // (2 * luma.size)
    levels = _all_levels(image.shape[2])
    return blend(jnp.broadcast_to(mean, levels.shape), levels, factor)


def posterize(bits: Int[Array, ""], channels: int) -> Table:
    """Returns the table of `ImageOps.posterize`, which keeps the upper `bits` bits (0 to 8) of each value."""
    return _all_levels(channels) & ~((1 << (8 - bits)) - 1)


def solarize(threshold: Float[Array, ""], channels: int) -> Table:
    """Returns the table of `ImageOps.solarize`, which inverts values of at least `threshold`."""
    levels = _all_levels(channels)
    return jnp.where(levels.astype(jnp.float32) < threshold, levels, 255 - levels)


def invert(channels: int) -> Table:
    """Returns the table of `ImageOps.invert`."""
    return 255 - _all_levels(channels)


def autocontrast(image: Levels) -> Table:
    """Returns the table of `ImageOps.autocontrast`: the smallest value of a channel becomes 0, the largest 255."""
    low, high = image.min((0, 1)), image.max((0, 1))
    levels = _all_levels(image.shape[2])
    stretched = (levels - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, stretched.clip(0, 255), levels)


def equalize(image: Levels) -> Table:
    """Returns the table of `ImageOps.equalize`, which flattens the histogram of each channel."""
    return jax.vmap(_equalize_channel, in_axes=-1, out_axes=-1)(image.reshape(-1, image.shape[2]))


def _equalize_channel(values: Int[Array, " n"]) -> Int[Array, "256"]:
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (len(values) - counts[values.max()]) // 255
    before = jnp.cumsum(counts) - counts
    spread = ((step // 2 + before) // jnp.maximum(step, 1)).clip(0, 255)
    return jnp.where(step > 0, spread, jnp.arange(256))


def apply_table(image: Levels, table: Table) -> Levels:
    """Replaces each value by its entry in the table."""
    return jnp.take_along_axis(table, image.reshape(-1, image.shape[2]), 0).reshape(image.shape)


def _all_levels(channels: int) -> Table:
    return jnp.broadcast_to(jnp.arange(256)[:, None], (256, channels))
