"""Max and average pooling of a batch of maps, and their gradients."""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..errors import InputError
from ..layers.sizes import Padding, Size
from ..types import Images
from .sliding_windows import Windows, windows

#: Which pixels of each window are its largest, and where the windows lie.
MaxPoolCache: TypeAlias = tuple[Bool[Array, "..."], Windows]


def max_pool_forward(
    x: Images, kernel_size: Size, stride: Size | None = None, padding: Padding = "VALID"
) -> tuple[Float[Array, "b h2 w2 c"], MaxPoolCache]:
    """The largest value of each window, a channel on its own.

    **Arguments:**

    - `x`: maps `[b h w c]`.
    - `kernel_size`, `stride`, `padding`: see `windows`; the stride is the kernel's size unless given, and padding,
      which never wins, must be smaller than the kernel.

    **Returns:** maps `[b h' w' c]`, and what `max_pool_backward` needs.
    """
    where = _pool_windows(x, kernel_size, stride, padding)
    if any(max(edge) >= k for edge, k in zip(where.edges, where.kernel, strict=True)):
        raise InputError(
            f"`padding` (={padding!r}) must be smaller than `kernel_size` (={kernel_size}), so that no window lies "
            "outside the image."
        )
    values, axes = _open(where, x, -jnp.inf)
    y = values.max(axes)
    return y, (values == jnp.expand_dims(y, axes), where)


def max_pool_backward(cache: MaxPoolCache, dy: Float[Array, "b h2 w2 c"]) -> Images:
    """The gradient by the maps: each window gives `dy` to its largest pixel, or equal shares to those that tie."""
    is_largest, where = cache
    axes = _axes(where)
    share = dy / is_largest.sum(axes, dtype=dy.dtype)
    return _close(where, jnp.where(is_largest, jnp.expand_dims(share, axes), 0))


def avg_pool_forward(
    x: Images, kernel_size: Size, stride: Size | None = None, padding: Padding = "VALID"
) -> tuple[Float[Array, "b h2 w2 c"], Windows]:
    """The mean of each window, a channel on its own; padding counts as zeros.

    **Arguments:**

    - `x`: maps `[b h w c]`.
    - `kernel_size`, `stride`, `padding`: see `windows`; the stride is the kernel's size unless given.

    **Returns:** maps `[b h' w' c]`, and what `avg_pool_backward` needs.
    """
    where = _pool_windows(x, kernel_size, stride, padding)
    values, axes = _open(where, x, 0.0)
    return values.mean(axes), where


def avg_pool_backward(cache: Windows, dy: Float[Array, "b h2 w2 c"]) -> Images:
    """The gradient by the maps: each window gives `dy / (kh * kw)` to each of its pixels."""
    kh, kw = cache.kernel
    (b, h2, w2, c) = dy.shape
    shape = (b, h2, kh, w2, kw, c) if cache.is_tiling else (b, h2, w2, kh * kw, c)
    return _close(cache, jnp.broadcast_to(jnp.expand_dims(dy / (kh * kw), _axes(cache)), shape))


def _pool_windows(x: Images, kernel_size: Size, stride: Size | None, padding: Padding) -> Windows:
    return windows((x.shape[1], x.shape[2]), kernel_size, kernel_size if stride is None else stride, padding)


def _axes(where: Windows) -> tuple[int, ...]:
    """The axes on which `_open` lays out the pixels of a window."""
    return (2, 4) if where.is_tiling else (3,)


def _open(where: Windows, x: Images, fill: float) -> tuple[Float[Array, "..."], tuple[int, ...]]:
    """Each window's pixels on axes of their own, and those axes."""
    # The reshape is several times faster than the copies.
    if where.is_tiling:
        return where.tile(x, fill), _axes(where)
    patches = where.cut(x, fill)
    return patches.reshape(*patches.shape[:3], -1, x.shape[-1]), _axes(where)


def _close(where: Windows, values: Float[Array, "..."]) -> Images:
    """The transpose of `_open`."""
    return where.untile(values) if where.is_tiling else where.paste(values.reshape(*values.shape[:3], -1))
