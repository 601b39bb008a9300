"""Convolution of a batch of maps, and its gradients with respect to the maps, the kernel and the bias."""

from typing import TypeAlias

from jaxtyping import Array, Float

from ..layers.sizes import Padding, Size
from .sliding_windows import Windows, windows

#: The patches that the kernel met, the kernel, and where the patches were cut from.
ConvCache: TypeAlias = tuple[Float[Array, "b h2 w2 kc"], Float[Array, "kh kw i o"], Windows]


def conv_forward(
    x: Float[Array, "b h w i"],
    weight: Float[Array, "kh kw i o"],
    bias: Float[Array, " o"],
    stride: Size = 1,
    padding: Padding = "VALID",
) -> tuple[Float[Array, "b h2 w2 o"], ConvCache]:
    """Cross-correlates maps with kernels: one matrix product of all patches with the kernels as columns.

    The patches hold every pixel up to `kh * kw` times. With one to three channels that is two to four times faster on a
    CPU than XLA's convolution and its gradients, with many up to twice slower.

    **Arguments:**

    - `x`: maps `[b h w i]`.
    - `weight`, `bias`: kernels `[kh kw i o]` and `[o]`.
    - `stride`, `padding`: see `windows`.

    **Returns:** maps `[b h' w' o]`, `h' = (h + top + bottom - kh) // stride + 1`, and what `conv_backward` needs.
    """
    where = windows((x.shape[1], x.shape[2]), (weight.shape[0], weight.shape[1]), stride, padding)
    patches = where.cut(x)
    return patches @ _columns(weight) + bias, (patches, weight, where)


def conv_backward(
    cache: ConvCache, dy: Float[Array, "b h2 w2 o"]
) -> tuple[Float[Array, "b h w i"], Float[Array, "kh kw i o"], Float[Array, " o"]]:
    """The gradients `(dx, dweight, dbias)` of a loss whose gradient by the output is `dy`."""
    patches, weight, where = cache
    dx = where.paste(dy @ _columns(weight).T)
    flat = dy.reshape(-1, dy.shape[-1])
    dweight = patches.reshape(flat.shape[0], -1).T @ flat
    return dx, dweight.reshape(weight.shape), flat.sum(0)


def _columns(weight: Float[Array, "kh kw i o"]) -> Float[Array, "kc o"]:
    """A kernel a column, its numbers in the order of a patch's."""
    return weight.reshape(-1, weight.shape[-1])
