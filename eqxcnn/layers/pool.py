"""Pooling of one image, channels last. Sizes, padding and `ceil_mode` have the same meaning as in torch."""

from collections.abc import Callable
from functools import reduce
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax import lax
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Image
from .cpu.availability import is_plain
from .cpu.nonoverlapping_pool import max_windows, sum_windows
from .sizes import Pair, Size, parse_pair
from .windows import reduce_windows

__all__ = ["AdaptiveAvgPool", "AvgPool", "MaxPool", "global_avg_pool", "global_max_pool"]

#: Windows that do not overlap and have at most this many pixels are pooled by `nonoverlapping_pool`.
_MAX_PIXELS_AT_ONCE = 9


class MaxPool(eqx.Module):
    """Takes the largest value of each window of an image `[h w c]`, per channel.

    The output is `[h' w' c]` with `h' = (h + 2 * padding - kernel) // stride + 1`, rounded up in `ceil_mode`. If
    several values tie for the maximum, the first in row-major order gets the gradient, as in torch.

    **Arguments:**

    - `kernel_size`: the window, an integer or a `(height, width)` pair.
    - `stride`: the step from one window to the next, an integer or a pair; `kernel_size` by default.
    - `padding`: pixels of minus infinity added on each side, at most half of `kernel_size`.
    - `ceil_mode`: whether the last window may extend beyond the padding at the end; it must start before that padding.

    **Raises:** `InputError` for invalid sizes.
    """

    kernel_size: Pair = eqx.field(static=True)
    stride: Pair = eqx.field(static=True)
    padding: Pair = eqx.field(static=True)
    ceil_mode: bool = eqx.field(static=True)

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *, ceil_mode: bool = False):
        self.kernel_size, self.stride, self.padding = _check_window(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 c"]:
        """Returns the pooled image.

        **Raises:** `InputError` if the window is larger than the padded image.
        """
        return _pool(image, self, -jnp.inf, max_windows, _maximum)


class AvgPool(eqx.Module):
    """Takes the mean of each window of an image `[h w c]`, per channel.

    **Arguments:**

    - `kernel_size`, `stride`, `padding`, `ceil_mode`: as for `MaxPool`, but padding adds zeros.
    - `count_include_pad`: whether zeros of the padding count as values of their window.

    **Raises:** `InputError` for invalid sizes.
    """

    kernel_size: Pair = eqx.field(static=True)
    stride: Pair = eqx.field(static=True)
    padding: Pair = eqx.field(static=True)
    ceil_mode: bool = eqx.field(static=True)
    count_include_pad: bool = eqx.field(static=True)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        self.kernel_size, self.stride, self.padding = _check_window(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 c"]:
        """Returns the pooled image; sums are computed in at least float32.

        **Raises:** `InputError` if the window is larger than the padded image.
        """
        wide = image.astype(np.promote_types(image.dtype, np.float32))
        total = _pool(wide, self, 0.0, sum_windows, jnp.add)
        rows, columns = (_count_values(self, axis, image.shape[axis], total.shape[axis]) for axis in (0, 1))
        counts = jnp.asarray(np.outer(rows, columns)[:, :, None], wide.dtype)
        return (total / counts).astype(image.dtype)


class AdaptiveAvgPool(eqx.Module):
    """Averages an image `[h w c]` over a grid of `output_size` windows, as `torch.nn.AdaptiveAvgPool2d` does.

    Output row `i` of `n` is the mean of the input rows from `floor(i h / n)` up to, but not including,
    `ceil((i + 1) h / n)`. Columns are averaged the same way.

    **Arguments:**

    - `output_size`: the height and width of the output, an integer or a pair.

    **Raises:** `InputError` for an invalid size.
    """

    output_size: Pair = eqx.field(static=True)

    def __init__(self, output_size: Size):
        self.output_size = parse_pair("output_size", output_size, least=1)

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 c"]:
        """Returns the pooled image."""
        # One averaging matrix per axis, because windows may overlap and the image may be smaller than the output.
        rows, columns = (
            jnp.asarray(_averaging_matrix(size, count), image.dtype)
            for size, count in zip(image.shape, self.output_size, strict=False)
        )
        exact = lax.Precision.HIGHEST
        return jnp.einsum("ph,qw,hwc->pqc", rows, columns, image, precision=exact)


@jaxtyped(typechecker=beartype)
def global_avg_pool(x: Image) -> Float[Array, " c"]:
    """Returns the mean of each channel over all positions of one image."""
    return jnp.mean(x, axis=(0, 1))


@jaxtyped(typechecker=beartype)
def global_max_pool(x: Image) -> Float[Array, " c"]:
    """Returns the largest value of each channel over all positions of one image."""
    height, width, channels = x.shape
    return MaxPool((height, width))(x).reshape(channels)


@jax.custom_jvp
def _maximum(x: Array, y: Array) -> Array:
    return jnp.maximum(x, y)


@_maximum.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # JAX's rule compares both arguments with the maximum. If XLA recomputes `x` for the comparison and rounds
    # differently, neither argument equals the maximum, and the gradient is lost.
    return _maximum(*primals), jnp.where(primals[0] >= primals[1], *tangents)


def _check_window(kernel_size: Size, stride: Size | None, padding: Size) -> tuple[Pair, Pair, Pair]:
    kernel = parse_pair("kernel_size", kernel_size, least=1)
    edge = parse_pair("padding", padding, least=0)
    if any(2 * pixels > size for pixels, size in zip(edge, kernel, strict=True)):
        raise InputError(f"`padding` (={padding}) must be at most half of `kernel_size` (={kernel_size}).")
    return kernel, kernel if stride is None else parse_pair("stride", stride, least=1), edge


def _pool(
    image: Image,
    pool: MaxPool | AvgPool,
    fill: float,
    combine_windows: Callable[[Image, Pair], Array],
    combine: Callable[[Array, Array], Array],
) -> Float[Array, "h2 w2 c"]:
    """Combines the values of each window, first along the width and then along the height.

    **Arguments:**

    - `fill`: the value of padded pixels.
    - `combine_windows`: pools windows that cover the image without overlap.
    - `combine`: combines two arrays elementwise.
    """
    edges = _find_edges(image, pool)
    if is_plain():
        return reduce_windows(image, pool.kernel_size, pool.stride, edges, fill)
    x = lax.pad(image, jnp.asarray(fill, image.dtype), [*((*edge, 0) for edge in edges), (0, 0, 0)])
    if pool.kernel_size == pool.stride and prod(pool.kernel_size) <= _MAX_PIXELS_AT_ONCE:
        return combine_windows(x, pool.kernel_size)
    # Pools one axis at a time: on a CPU, the gradient of `lax.reduce_window` is slow, and pooling both axes at once, by
    # one slice per pixel of the window, has an even slower gradient.
    for axis in (1, 0):
        size, stride, span = pool.kernel_size[axis], pool.stride[axis], x.shape[axis]
        if size == stride:
            # A reshape is faster than the slices below.
            parts = jnp.split(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :]), size, axis + 1)
            x = reduce(combine, (part.squeeze(axis + 1) for part in parts))
        else:
            x = reduce(combine, (lax.slice_in_dim(x, i, span - size + i + 1, stride, axis) for i in range(size)))
    return x


def _find_edges(image: Image, pool: MaxPool | AvgPool) -> list[tuple[int, int]]:
    """Returns the pixels to add around height and width; a negative number drops pixels that no window covers."""
    edges = []
    for axis in (0, 1):
        size, edge = image.shape[axis], pool.padding[axis]
        span = (_count_windows(pool, axis, size) - 1) * pool.stride[axis] + pool.kernel_size[axis]
        edges.append((edge, span - size - edge))
    return edges


def _count_windows(pool: MaxPool | AvgPool, axis: int, size: int) -> int:
    """Returns the number of windows along an axis of `size` pixels."""
    kernel, stride, edge = pool.kernel_size[axis], pool.stride[axis], pool.padding[axis]
    room = size + 2 * edge - kernel
    count = (-(-room // stride) if pool.ceil_mode else room // stride) + 1
    if pool.ceil_mode and (count - 1) * stride >= size + edge:
        count -= 1
    if count < 1:
        raise InputError(
            f"`image` ({size} pixels {'high' if axis == 0 else 'wide'}) is too small for `kernel_size` "
            f"(={pool.kernel_size}) with `padding` (={pool.padding}): give a larger image or a smaller kernel."
        )
    return count


def _count_values(pool: AvgPool, axis: int, size: int, windows: int) -> np.ndarray:
    """Returns, for each window along an axis of `size` pixels, the number of values to average."""
    edge = pool.padding[axis]
    starts = np.arange(windows) * pool.stride[axis] - edge
    # With `ceil_mode`, a window may extend beyond the padding; pixels there are never counted.
    ends = np.minimum(starts + pool.kernel_size[axis], size + edge)
    if not pool.count_include_pad:
        starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
    return ends - starts


def _averaging_matrix(size: int, count: int) -> np.ndarray:
    """Returns the matrix `[count size]` that averages `size` pixels into `count` means."""
    index = np.arange(count)[:, None]
    pixels = np.arange(size)
    starts, ends = index * size // count, -(-(index + 1) * size // count)
    is_inside = (starts <= pixels) & (pixels < ends)
    return is_inside / is_inside.sum(axis=1, keepdims=True)
