"""Pooling of one image, channels last. Sizes, padding and `ceil_mode` mean what they mean in torch."""

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
from .cpu.nonoverlapping_pool import tile_maxima, tile_sums
from .sizes import Size, pair

#: Pixels of a window, of those that do not overlap, up to which all of them are combined at once.
_SMALL = 9


class MaxPool(eqx.Module):
    """The largest value of each window of an image `[h w c]`, a channel on its own.

    The output is `[h' w' c]` with `h' = (h + 2 * padding - kernel) // stride + 1`, rounded up in `ceil_mode`. Where
    several values tie for the largest, the first of them by row and column has the gradient, as in torch.

    **Arguments:**

    - `kernel_size`: the window, an integer or a `(height, width)` pair.
    - `stride`: from one window to the next, likewise; the kernel's size unless told otherwise.
    - `padding`: pixels added on either side that never win, at most half a kernel.
    - `ceil_mode`: whether a last window may reach past the padding, as long as it starts before it.

    **Raises:** `InputError` for sizes that cannot be.
    """

    kernel_size: tuple[int, int] = eqx.field(static=True)
    stride: tuple[int, int] = eqx.field(static=True)
    padding: tuple[int, int] = eqx.field(static=True)
    ceil_mode: bool = eqx.field(static=True)

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *, ceil_mode: bool = False):
        self.kernel_size, self.stride, self.padding = _check_window(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 c"]:
        """The pooled image.

        **Raises:** `InputError` if the window is larger than the padded image.
        """
        return _pool(image, self, -jnp.inf, tile_maxima, _larger)


class AvgPool(eqx.Module):
    """The mean of each window of an image `[h w c]`, a channel on its own.

    **Arguments:**

    - `kernel_size`, `stride`, `padding`, `ceil_mode`: as for `MaxPool`; padding adds zeros.
    - `count_include_pad`: whether the zeros of the padding count as values of their window.

    **Raises:** `InputError` for sizes that cannot be.
    """

    kernel_size: tuple[int, int] = eqx.field(static=True)
    stride: tuple[int, int] = eqx.field(static=True)
    padding: tuple[int, int] = eqx.field(static=True)
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
        """The pooled image, summed in at least float32.

        **Raises:** `InputError` if the window is larger than the padded image.
        """
        wide = image.astype(np.promote_types(image.dtype, np.float32))
        total = _pool(wide, self, 0.0, tile_sums, jnp.add)
        rows, columns = (_counts(self, axis, image.shape[axis], total.shape[axis]) for axis in (0, 1))
        counts = jnp.asarray(np.outer(rows, columns)[:, :, None], wide.dtype)
        return (total / counts).astype(image.dtype)


class AdaptiveAvgPool(eqx.Module):
    """Means over a grid of windows that share an image `[h w c]` out evenly, as `torch.nn.AdaptiveAvgPool2d` does.

    Output pixel `i` of `n` is the mean of the rows from `floor(i h / n)` up to, not including, `ceil((i + 1) h / n)`.

    **Arguments:**

    - `output_size`: height and width of the output, an integer or a pair.
    """

    output_size: tuple[int, int] = eqx.field(static=True)

    def __init__(self, output_size: Size):
        self.output_size = pair("output_size", output_size, least=1)

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Float[Array, "h2 w2 c"]:
        """The pooled image, of `output_size`."""
        # A matrix of means for each axis: windows may overlap, and an image may be smaller than its output.
        rows, columns = (
            jnp.asarray(_shares(size, count), image.dtype)
            for size, count in zip(image.shape, self.output_size, strict=False)
        )
        exact = lax.Precision.HIGHEST
        return jnp.einsum("ph,qw,hwc->pqc", rows, columns, image, precision=exact)


@jaxtyped(typechecker=beartype)
def global_avg_pool(x: Image) -> Float[Array, " c"]:
    """Each channel's mean over all positions of one image."""
    return jnp.mean(x, axis=(0, 1))


@jaxtyped(typechecker=beartype)
def global_max_pool(x: Image) -> Float[Array, " c"]:
    """Each channel's largest value over all positions of one image."""
    height, width, channels = x.shape
    return MaxPool((height, width))(x).reshape(channels)


@jax.custom_jvp
def _larger(x: Array, y: Array) -> Array:
    return jnp.maximum(x, y)


@_larger.defjvp
def _(values: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # JAX's own rules ask which of both equals the larger one. XLA may work `x` out anew to answer that, and round it
    # otherwise than before: then neither does, and the gradient is lost or no number.
    return _larger(*values), jnp.where(values[0] >= values[1], *tangents)


def _check_window(kernel_size: Size, stride: Size | None, padding: Size) -> tuple[tuple[int, int], ...]:
    kernel = pair("kernel_size", kernel_size, least=1)
    edge = pair("padding", padding, least=0)
    if any(2 * each > size for each, size in zip(edge, kernel, strict=True)):
        raise InputError(f"`padding` (={padding}) must be at most half of `kernel_size` (={kernel_size}).")
    return kernel, kernel if stride is None else pair("stride", stride, least=1), edge


def _pool(
    image: Image,
    pool: MaxPool | AvgPool,
    fill: float,
    of_tiles: Callable[[Image, tuple[int, int]], Array],
    combine: Callable[[Array, Array], Array],
) -> Float[Array, "h2 w2 c"]:
    """Combines each window's values, two arrays of them at a time, along its rows first."""
    x = _padded(image, pool, fill)
    if pool.kernel_size == pool.stride and prod(pool.kernel_size) <= _SMALL:
        return of_tiles(x, pool.kernel_size)
    # Slices along one axis and then the other, as the backward pass of `lax.reduce_window` is slow on a CPU, and that
    # of a slice for each of the kernel's pixels slower still.
    for axis in (1, 0):
        size, stride, span = pool.kernel_size[axis], pool.stride[axis], x.shape[axis]
        if size == stride:
            # The same by shape alone, which is quicker still.
            parts = jnp.split(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :]), size, axis + 1)
            x = reduce(combine, (part.squeeze(axis + 1) for part in parts))
        else:
            x = reduce(combine, (lax.slice_in_dim(x, i, span - size + i + 1, stride, axis) for i in range(size)))
    return x


def _padded(image: Image, pool: MaxPool | AvgPool, fill: float) -> Float[Array, "h2 w2 c"]:
    """The image with its padding, from where its first window starts to where its last one ends."""
    edges = []
    for axis in (0, 1):
        size, edge = image.shape[axis], pool.padding[axis]
        span = (_windows(pool, axis, size) - 1) * pool.stride[axis] + pool.kernel_size[axis]
        # Negative where pixels are left over.
        edges.append((edge, span - size - edge, 0))
    return lax.pad(image, jnp.asarray(fill, image.dtype), [*edges, (0, 0, 0)])


def _windows(pool: MaxPool | AvgPool, axis: int, size: int) -> int:
    """How many windows fit along an axis of `size` pixels."""
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


def _counts(pool: AvgPool, axis: int, size: int, windows: int) -> np.ndarray:
    """What the sum of each window along an axis of `size` pixels is divided by."""
    edge = pool.padding[axis]
    starts = np.arange(windows) * pool.stride[axis] - edge
    # Pixels that `ceil_mode` reaches beyond the padding are never counted.
    ends = np.minimum(starts + pool.kernel_size[axis], size + edge)
    if not pool.count_include_pad:
        starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
    return ends - starts


def _shares(size: int, count: int) -> np.ndarray:
    """`[count size]`: what each of `size` pixels weighs in each of `count` means."""
    index = np.arange(count)[:, None]
    pixels = np.arange(size)
    starts, ends = index * size // count, -(-(index + 1) * size // count)
    inside = (starts <= pixels) & (pixels < ends)
    return inside / inside.sum(axis=1, keepdims=True)
