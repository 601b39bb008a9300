"""Convolution of a batch of maps, and its gradients with respect to maps, kernel and bias."""

from typing import TypeAlias

from jaxtyping import Array, Float

from ..layers.sizes import Padding, Size
from .sliding_windows import Windows, windows

__all__ = ["ConvCache", "conv_backward", "conv_forward"]

#: The input's patches, the kernel, and the windows by which the patches were cut.
ConvCache: TypeAlias = tuple[Float[Array, "b h2 w2 kc"], Float[Array, "kh kw i o"], Windows]


def conv_forward(
    x: Float[Array, "b h w i"],
    weight: Float[Array, "kh kw i o"],
    bias: Float[Array, " o"],
    stride: Size = 1,
    padding: Padding = "VALID",
) -> tuple[Float[Array, "b h2 w2 o"], ConvCache]:
    """Convolves maps with a kernel (as cross-correlation), by one matrix product of all patches with the kernel.

    The patches need up to `kh * kw` times the memory of the input.

    **Arguments:**

    - `x`: maps `[b h w i]`.
    - `weight`, `bias`: kernel `[kh kw i o]` and bias `[o]`.
    - `stride`, `padding`: as for `windows`.

    **Returns:** maps `[b h' w' o]`, `h' = (h + top + bottom - kh) // stride + 1`, and the cache for `conv_backward`.
    """
    grid = windows((x.shape[1], x.shape[2]), (weight.shape[0], weight.shape[1]), stride, padding)
    patches = grid.cut(x)
    return patches @ _columns(weight) + bias, (patches, weight, grid)


def conv_backward(
    cache: ConvCache, dy: Float[Array, "b h2 w2 o"]
) -> tuple[Float[Array, "b h w i"], Float[Array, "kh kw i o"], Float[Array, " o"]]:
    """Returns the gradients `(dx, dweight, dbias)` of the loss, given its gradient `dy` with respect to the output."""
    patches, weight, grid = cache
    dx = grid.paste(dy @ _columns(weight).T)
    flat = dy.reshape(-1, dy.shape[-1])
    dweight = patches.reshape(flat.shape[0], -1).T @ flat
    return dx, dweight.reshape(weight.shape), flat.sum(0)


def _columns(weight: Float[Array, "kh kw i o"]) -> Float[Array, "kc o"]:
    """Returns the kernel as a matrix: one row per value of a patch, in order, and one column per output channel."""
    return weight.reshape(-1, weight.shape[-1])
