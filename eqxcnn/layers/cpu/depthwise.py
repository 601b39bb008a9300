"""Depthwise convolution on a CPU, as a sum over the kernel's pixels ("taps").

On a CPU, XLA computes a depthwise convolution and both of its gradients in a naive loop. A sum of shifted images,
each multiplied by one tap, is many times faster, because XLA fuses it into one loop along the channels. For inference,
the same is true of ordinary convolutions of images with few channels.
"""

import functools
import operator
from itertools import product
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...types import Image
from ..sizes import Pair
from .implementation import Images, Implementation, Kernel, KernelShape, Outputs, Window

__all__ = ["DEPTHWISE", "convolve_few_channels"]

_Filtered: TypeAlias = Float[Array, "h2 w2 c"]
_Taps: TypeAlias = Float[Array, "kh kw c"]


def _convolve(images: Images, kernel: Kernel, window: Window) -> Outputs:
    def convolve_one(image: Image) -> _Filtered:
        return _sum_taps(jnp.pad(image, (*window.edges, (0, 0))), kernel[:, :, 0], window.stride, window.dilation)

    return jax.vmap(convolve_one)(images)


def _images_gradient(out: Outputs, kernel: Kernel, window: Window, size: Pair) -> Images:
    """Inserts `stride - 1` zeros between the pixels of the outputs' gradient and convolves with the flipped kernel."""
    spread = []
    for axis in (0, 1):
        span = (kernel.shape[axis] - 1) * window.dilation[axis]
        before, stride = span - window.edges[axis][0], window.stride[axis]
        spread_size = (out.shape[axis + 1] - 1) * stride + 1
        spread.append((before, size[axis] + span - before - spread_size, stride - 1))

    def convolve_one(out: _Filtered) -> Image:
        padded = lax.pad(out, jnp.zeros((), out.dtype), (*spread, (0, 0, 0)))
        return _sum_taps(padded, kernel[::-1, ::-1, 0], (1, 1), window.dilation)

    return jax.vmap(convolve_one)(out)


def _kernel_gradient(out: Outputs, images: Images, window: Window, shape: KernelShape) -> Kernel:
    (rows, columns, *_), (_, height, width, channels), (down, right) = shape, out.shape, window.dilation
    stride, span = window.stride, down * (rows - 1) + 1

    def sum_products(image_and_out: tuple[Image, _Filtered]) -> _Taps:
        image, out = image_and_out
        padded = jnp.pad(image, (*window.edges, (0, 0)))

        # A loop over rows keeps the sums of all taps in the cache. A reduction would read all images once per tap.
        def add_row(row: Array | int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            pixels = lax.dynamic_slice_in_dim(padded, row * stride[0], span)[::down]
            row_out = lax.dynamic_index_in_dim(out, row, keepdims=False)[None]
            lefts = (column * right for column in range(columns))
            return tuple(
                total + pixels[:, left : left + (width - 1) * stride[1] + 1 : stride[1]] * row_out
                for total, left in zip(sums, lefts, strict=True)
            )

        zeros = tuple(jnp.zeros((rows, width, channels), out.dtype) for _ in range(columns))
        return jnp.stack([total.sum(1) for total in lax.fori_loop(0, height, add_row, zeros)], axis=1)

    # One image at a time, so that the image stays in the cache.
    return lax.map(sum_products, (images, out)).sum(0)[:, :, None]


def convolve_few_channels(images: Images, kernel: Kernel, window: Window) -> Outputs:
    """Convolves without groups, as a sum over the kernel's pixels and the input channels."""
    padded = lax.pad(
        images, jnp.zeros((), images.dtype), [(0, 0, 0), *((*edge, 0) for edge in window.edges), (0, 0, 0)]
    )
    terms, weights = [], kernel.reshape(-1, 1, 1, kernel.shape[3])
    for index, place in enumerate(product(*map(range, kernel.shape[:3]))):
        starts = [position * step for position, step in zip(place, (*window.dilation, 1), strict=True)]
        ends = [
            length - (size - 1 - position) * step
            for length, size, position, step in zip(
                padded.shape[1:], kernel.shape[:3], place, (*window.dilation, 1), strict=True
            )
        ]
        pixels = lax.slice(padded, (0, *starts), (len(images), *ends), (1, *window.stride, 1))
        terms.append(pixels * lax.slice_in_dim(weights, index, index + 1))
    return functools.reduce(operator.add, terms)


def _sum_taps(padded: Image, weight: _Taps, stride: Pair, dilation: Pair) -> _Filtered:
    """Multiplies each tap by a slice of the image, and returns the sum over all taps."""
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


#: The implementation for convolutions with one output channel per input channel.
DEPTHWISE = Implementation(_convolve, _images_gradient, _kernel_gradient)
