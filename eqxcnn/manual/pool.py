"""Max and average pooling of a batch of maps, and their gradients."""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..errors import InputError
from ..layers.sizes import Padding, Size
from ..types import Images
from .sliding_windows import Windows, windows

__all__ = ["MaxPoolCache", "avg_pool_backward", "avg_pool_forward", "max_pool_backward", "max_pool_forward"]

#: A boolean mask of the pixels that equal the maximum of their window, and the positions of the windows.
MaxPoolCache: TypeAlias = tuple[Bool[Array, "..."], Windows]


def max_pool_forward(
    x: Images, kernel_size: Size, stride: Size | None = None, padding: Padding = "VALID"
) -> tuple[Float[Array, "b h2 w2 c"], MaxPoolCache]:
    """Computes the maximum of each window, per channel.

    **Arguments:**

    - `x`: maps `[b h w c]`.
    - `kernel_size`, `stride`, `padding`: as for `windows`. The stride defaults to `kernel_size`. Padding counts as
      -inf, and must be smaller than the kernel.

    **Returns:** maps `[b h' w' c]` and the cache for `max_pool_backward`.

    **Raises:** `InputError` if a window could lie entirely in the padding, or if `windows` refuses the arguments.
    """
    grid = _pool_windows(x, kernel_size, stride, padding)
    if any(max(edge) >= k for edge, k in zip(grid.edges, grid.kernel, strict=True)):
        raise InputError(
            f"`padding` (={padding!r}) must be smaller than `kernel_size` (={kernel_size}), so that every window "
            "overlaps the image"
        )
    values, axes = _extract_windows(grid, x, -jnp.inf)
    y = values.max(axes)
    return y, (values == jnp.expand_dims(y, axes), grid)


def max_pool_backward(cache: MaxPoolCache, dy: Float[Array, "b h2 w2 c"]) -> Images:
    """Returns the gradient with respect to the maps: each window passes `dy` to its largest pixel.

    Pixels that tie for the maximum get equal shares of `dy`.
    """
    is_largest, grid = cache
    axes = _window_axes(grid)
    share = dy / is_largest.sum(axes, dtype=dy.dtype)
    return _sum_windows(grid, jnp.where(is_largest, jnp.expand_dims(share, axes), 0))


def avg_pool_forward(
    x: Images, kernel_size: Size, stride: Size | None = None, padding: Padding = "VALID"
) -> tuple[Float[Array, "b h2 w2 c"], Windows]:
    """Computes the mean of each window, per channel; padding counts as zeros.

    **Arguments:**

    - `x`: maps `[b h w c]`.
    - `kernel_size`, `stride`, `padding`: as for `windows`. The stride defaults to `kernel_size`.

    **Returns:** maps `[b h' w' c]` and the cache for `avg_pool_backward`.
    """
    grid = _pool_windows(x, kernel_size, stride, padding)
    values, axes = _extract_windows(grid, x, 0.0)
    return values.mean(axes), grid


def avg_pool_backward(cache: Windows, dy: Float[Array, "b h2 w2 c"]) -> Images:
    """Returns the gradient with respect to the maps: each window adds `dy / (kh * kw)` to each of its pixels."""
    kh, kw = cache.kernel
    (b, h2, w2, c) = dy.shape
    shape = (b, h2, kh, w2, kw, c) if cache.is_tiling else (b, h2, w2, kh * kw, c)
    return _sum_windows(cache, jnp.broadcast_to(jnp.expand_dims(dy / (kh * kw), _window_axes(cache)), shape))


def _pool_windows(x: Images, kernel_size: Size, stride: Size | None, padding: Padding) -> Windows:
    return windows((x.shape[1], x.shape[2]), kernel_size, kernel_size if stride is None else stride, padding)


def _window_axes(grid: Windows) -> tuple[int, ...]:
    """Returns the axes of the array from `_extract_windows` that run over the pixels of one window."""
    return (2, 4) if grid.is_tiling else (3,)


def _extract_windows(grid: Windows, x: Images, fill: float) -> tuple[Float[Array, "..."], tuple[int, ...]]:
    """Returns the pixels of all windows as an array, and the axes that run over the pixels of one window."""
    # Windows that do not overlap need only a reshape, no copies.
    if grid.is_tiling:
        return grid.tile(x, fill), _window_axes(grid)
    patches = grid.cut(x, fill)
    return patches.reshape(*patches.shape[:3], -1, x.shape[-1]), _window_axes(grid)


def _sum_windows(grid: Windows, values: Float[Array, "..."]) -> Images:
    """Returns maps in which each pixel is the sum of its values in all windows: the transpose of `_extract_windows`."""
    return grid.untile(values) if grid.is_tiling else grid.paste(values.reshape(*values.shape[:3], -1))
