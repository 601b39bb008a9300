"""Depthwise convolution on a CPU, as a sum over the kernel's pixels ("taps").

XLA computes a depthwise convolution, and both of its gradients, in a naive loop on a CPU. A sum of shifted images, each
multiplied by one tap, is fused into one loop along the channels and is many times faster. The gradients are written
out, since automatic differentiation would turn the kernel's gradient into slow reductions. Forward-mode differentiation
is therefore not supported.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...cost import register_product_scope
from ...types import Image
from ..sizes import Edges, Pair

__all__ = ["Filtered", "Kernel", "depthwise_conv"]

Kernel: TypeAlias = Float[Array, "kh kw c"]
Filtered: TypeAlias = Float[Array, "h2 w2 c"]

_SCOPE = "depthwise_taps"
register_product_scope(_SCOPE)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_conv(image: Image, weight: Kernel, edges: Edges, stride: Pair, dilation: Pair) -> Filtered:
    """Convolves each channel of an image `[h w c]` with its own kernel.

    **Arguments:**

    - `weight`: one kernel per channel.
    - `edges`: the zeros added before and after the height and the width.
    - `stride`, `dilation`: `(height, width)` pairs.
    """
    with jax.named_scope(_SCOPE):
        return _sum_taps(jnp.pad(image, (*edges, (0, 0))), weight, stride, dilation)


def _forward(
    image: Image, weight: Kernel, edges: Edges, stride: Pair, dilation: Pair
) -> tuple[Filtered, tuple[Image, Kernel]]:
    return depthwise_conv(image, weight, edges, stride, dilation), (image, weight)


def _backward(
    edges: Edges, stride: Pair, dilation: Pair, residuals: tuple[Image, Kernel], cotangent: Filtered
) -> tuple[Image, Kernel]:
    """Computes the image's gradient by convolving the cotangent, spread by the stride, with the flipped kernel."""
    image, weight = residuals
    spread = []
    for axis in (0, 1):
        span = (weight.shape[axis] - 1) * dilation[axis]
        before = span - edges[axis][0]
        spread_size = (cotangent.shape[axis] - 1) * stride[axis] + 1
        spread.append((before, image.shape[axis] + span - before - spread_size, stride[axis] - 1))
    zero = jnp.zeros((), cotangent.dtype)
    image_gradient = _sum_taps(lax.pad(cotangent, zero, (*spread, (0, 0, 0))), weight[::-1, ::-1], (1, 1), dilation)
    weight_gradient = _make_weight_gradient((weight.shape[0], weight.shape[1]), stride, dilation)
    return image_gradient, weight_gradient(jnp.pad(image, (*edges, (0, 0))), cotangent)


depthwise_conv.defvjp(_forward, _backward)


def _sum_taps(padded: Image, weight: Kernel, stride: Pair, dilation: Pair) -> Filtered:
    """Sums, over all taps, a slice of the image times the tap."""
    sizes = [
        (size - dilated * (kernel - 1) - 1) // step
        for size, kernel, step, dilated in zip(padded.shape, weight.shape, stride, dilation, strict=False)
    ]
    total = None
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            top, left = row * dilation[0], column * dilation[1]
            ends = top + sizes[0] * stride[0] + 1, left + sizes[1] * stride[1] + 1, padded.shape[2]
            term = lax.slice(padded, (top, left, 0), ends, (*stride, 1)) * weight[row, column][None, None]
            total = term if total is None else total + term
    assert total is not None
    return total


def _make_weight_gradient(kernel: Pair, stride: Pair, dilation: Pair) -> Callable[[Image, Filtered], Kernel]:
    """Returns a function of a padded image and a cotangent that gives the gradient `[kh kw c]` of the kernel."""

    def weight_gradient(padded: Image, cotangent: Filtered) -> Kernel:
        height, width, channels = cotangent.shape
        span = dilation[0] * (kernel[0] - 1) + 1

        # A loop over rows keeps the sums of all taps in the cache. A reduction would read the whole batch for each tap.
        def add_row(row: Array | int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            rows = lax.dynamic_slice_in_dim(padded, row * stride[0], span)[:: dilation[0]]
            row_cotangent = lax.dynamic_index_in_dim(cotangent, row, keepdims=False)[None]
            lefts = (column * dilation[1] for column in range(kernel[1]))
            return tuple(
                total + rows[:, left : left + (width - 1) * stride[1] + 1 : stride[1]] * row_cotangent
                for total, left in zip(sums, lefts, strict=True)
            )

        zeros = tuple(jnp.zeros((kernel[0], width, channels), cotangent.dtype) for _ in range(kernel[1]))
        return jnp.stack([total.sum(1) for total in lax.fori_loop(0, height, add_row, zeros)], axis=1)

    return _loop_over_batch(weight_gradient)


def _loop_over_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `vmap` run `function` on one example after the other, which keeps the data of its loop in the cache.

    `jax.custom_batching` has no compatibility guarantee. Without this module, `vmap` batches `function` as usual, which
    is slower.
    """
    try:
        from jax.custom_batching import sequential_vmap
    except ImportError:
        return function
    return sequential_vmap(function)
