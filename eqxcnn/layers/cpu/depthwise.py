"""Depthwise convolution as sums over the kernel's taps: many times as fast as XLA's own on a CPU.

XLA's grouped convolution is a naive loop there, and the sums over all positions that automatic differentiation makes of
the kernel's gradient are no faster, so that the gradient is written out too. It has reverse mode only.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from ...cost import TAPS
from ...types import Image

Pair: TypeAlias = tuple[int, int]
Kernel: TypeAlias = Float[Array, "kh kw c"]
Filtered: TypeAlias = Float[Array, "h2 w2 c"]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(image: Image, weight: Kernel, edges: tuple[Pair, Pair], stride: Pair, dilation: Pair) -> Filtered:
    """Filters each channel of an image `[h w c]` with a kernel of its own.

    **Arguments:**

    - `weight`: a kernel for each channel.
    - `edges`: the zeros added before and after the height and the width.
    - `stride`, `dilation`: `(height, width)` pairs.
    """
    with jax.named_scope(TAPS):
        return _taps(jnp.pad(image, (*edges, (0, 0))), weight, stride, dilation)


def _forward(
    image: Image, weight: Kernel, edges: tuple[Pair, Pair], stride: Pair, dilation: Pair
) -> tuple[Filtered, tuple[Image, Kernel]]:
    return depthwise(image, weight, edges, stride, dilation), (image, weight)


def _backward(
    edges: tuple[Pair, Pair], stride: Pair, dilation: Pair, kept: tuple[Image, Kernel], cotangent: Filtered
) -> tuple[Image, Kernel]:
    """The image's gradient is a convolution as well: of the spread-out cotangent with the kernel turned around."""
    image, weight = kept
    spread = []
    for axis in (0, 1):
        span = (weight.shape[axis] - 1) * dilation[axis]
        before = span - edges[axis][0]
        spread_size = (cotangent.shape[axis] - 1) * stride[axis] + 1
        spread.append((before, image.shape[axis] + span - before - spread_size, stride[axis] - 1))
    zero = jnp.zeros((), cotangent.dtype)
    of_image = _taps(lax.pad(cotangent, zero, (*spread, (0, 0, 0))), weight[::-1, ::-1], (1, 1), dilation)
    of_weight = _weight_gradient((weight.shape[0], weight.shape[1]), stride, dilation)
    return of_image, of_weight(jnp.pad(image, (*edges, (0, 0))), cotangent)


depthwise.defvjp(_forward, _backward)


def _taps(padded: Image, weight: Kernel, stride: Pair, dilation: Pair) -> Filtered:
    """One slice of the image for each pixel of the kernel, which XLA fuses into a single loop along the channels."""
    sizes = [
        (size - dilated * (kernel - 1) - 1) // step
        for size, kernel, step, dilated in zip(padded.shape, weight.shape, stride, dilation, strict=False)
    ]
    total = None
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            top, left = row * dilation[0], column * dilation[1]
            ends = top + sizes[0] * stride[0] + 1, left + sizes[1] * stride[1] + 1, padded.shape[2]
            term = lax.slice(padded, (top, left, 0), ends, (*stride, 1)) * weight[row, column]
            total = term if total is None else total + term
    assert total is not None
    return total


def _weight_gradient(kernel: Pair, stride: Pair, dilation: Pair) -> Callable[[Image, Filtered], Kernel]:
    """What gives the kernel's gradient `[kh kw c]` of a padded image and its cotangent, for one image after another."""

    # A loop over rows keeps all of the kernel's sums in the cache; as one reduction, each would read the whole batch.
    @sequential_vmap
    def gradient(padded: Image, cotangent: Filtered) -> Kernel:
        height, width, channels = cotangent.shape
        span = dilation[0] * (kernel[0] - 1) + 1

        def add_row(row: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            seen = lax.dynamic_slice_in_dim(padded, row * stride[0], span)[:: dilation[0]]
            given = lax.dynamic_index_in_dim(cotangent, row, keepdims=False)
            lefts = (column * dilation[1] for column in range(kernel[1]))
            return tuple(
                each + seen[:, left : left + (width - 1) * stride[1] + 1 : stride[1]] * given
                for each, left in zip(sums, lefts, strict=True)
            )

        empty = tuple(jnp.zeros((kernel[0], width, channels), cotangent.dtype) for _ in range(kernel[1]))
        return jnp.stack([each.sum(1) for each in lax.fori_loop(0, height, add_row, empty)], axis=1)

    return gradient
