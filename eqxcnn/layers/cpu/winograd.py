"""Winograd's algorithm F(4x4, 3x3): 3x3 convolutions with a quarter of the multiplications.

Output pixels are computed in tiles of 4x4 (Lavin & Gray 2016, arXiv 1509.09308, section 4):

- A tile depends on 6x6 input pixels `d`. `B^T d B` transforms them into 36 values per channel.
- The kernel `g` is transformed into 36 values per pair of channels, `G g G^T`. Inference does this once.
- Each of the 36 values is multiplied and summed over the input channels. Here, oneDNN does this in one grouped
  convolution with 36 groups.
- `A^T m A` transforms the 36 sums `m` of each output channel into the 4x4 output pixels.

The matrices evaluate polynomials at five points and at infinity. The choice of the points determines the rounding error
(Barabasz et al. 2020, arXiv 1803.10986). That of the points below is a quarter of that of the usual points 0, 1, -1, 2
and -2 (`tests/layers/cpu/test_winograd.py`).
"""

from collections.abc import Iterable
from functools import partial, reduce
from math import prod
from operator import add
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .fused_convolution import convolve_fused
from .implementation import Images, ImagesShape, Kernel, KernelShape, Outputs, Window

__all__ = [
    "Tiles",
    "TransformedKernel",
    "can_use_winograd",
    "convolve_by_winograd",
    "describe_products",
    "transform_kernel",
]

#: Tiles of all images, each with 36 values per channel.
Tiles: TypeAlias = Float[Array, "1 tiles 1 36*i"]
#: What `transform_kernel` returns, possibly packed.
TransformedKernel: TypeAlias = Float[Array, "1 1 i _"] | Float[Array, "blocks 1 1 i block"]

#: Lengths of the sides of a tile of outputs and of inputs.
_OUT, _IN = 4, 6
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
#: The 36 products as a pointwise convolution.
_PRODUCTS = Window((1, 1), ((0, 0), (0, 0)), (1, 1), groups=_IN**2)
#: oneDNN's grouped convolutions are slow unless the number of channels is a multiple of 16. With fewer channels than
#: 32, the transforms take longer than the multiplications that they save.
_CHANNELS_MULTIPLE, _MIN_CHANNELS = 16, 32
#: With fewer tiles, most of the time goes into reading the transformed kernel, which is four times as large.
_MIN_TILES = 16
#: The largest number of values in the tiles of the inputs or outputs: 256 MB in float32.
_MAX_VALUES = 2**26


def _make_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `A^T`, `G` and `B^T` in float64, by the method of Toom and Cook."""
    points = np.array(_POINTS)
    infinity = np.zeros(len(points) + 1)
    infinity[-1] = 1
    others = [np.delete(points, index) for index in range(len(points))]
    outputs = np.vstack([points[:, None] ** np.arange(_OUT), infinity[-_OUT:]])
    kernel = points[:, None] ** np.arange(3) / [[np.prod(p - rest)] for p, rest in zip(points, others, strict=True)]
    inputs = [np.append(np.poly(roots)[::-1], 0) for roots in others] + [np.poly(points)[::-1]]
    return outputs.T, np.vstack([kernel, infinity[-3:]]), np.stack(inputs)


_A, _G, _B = _make_matrices()


def can_use_winograd(images: ImagesShape, kernel: KernelShape, window: Window) -> bool:
    """Returns whether Winograd's algorithm is faster than a direct convolution, if oneDNN computes the products."""
    height, width, *channels = kernel
    is_plain = {*window.stride, *window.dilation, window.groups} == {1} and (height, width) == (3, 3)
    if not is_plain or min(channels) < _MIN_CHANNELS or any(each % _CHANNELS_MULTIPLE for each in channels):
        return False
    tiles = _count_tiles(images, window)
    return tiles >= _MIN_TILES and tiles * _IN**2 * max(channels) <= _MAX_VALUES


def describe_products(
    images: ImagesShape, kernel: KernelShape, window: Window
) -> tuple[ImagesShape, KernelShape, Window]:
    """Returns the shapes of the images and the kernel, and the window, of the grouped convolution."""
    _, _, inputs, outputs = kernel
    tiles = 1, _count_tiles(images, window), 1, _IN**2 * inputs
    return tiles, (1, 1, inputs, _IN**2 * outputs), _PRODUCTS


def transform_kernel(kernel: Kernel | np.ndarray) -> np.ndarray:
    """Returns `G g G^T` as the kernel `[1 1 i 36*o]` of the grouped convolution; computes in float64."""
    transform = np.kron(_G, _G)
    pixels = np.asarray(kernel).reshape(9, *kernel.shape[2:]).swapaxes(0, 1)
    transformed = np.stack([(transform @ each).astype(np.float32) for each in pixels])
    return transformed.reshape(1, 1, kernel.shape[2], -1)


# Jitted, so that convolutions of equal shapes are traced only once.
@partial(jax.jit, static_argnames=("window", "outputs"))
def convolve_by_winograd(images: Images, kernel: TransformedKernel, window: Window, outputs: int) -> Outputs:
    """Convolves with a kernel that `transform_kernel` returned.

    **Arguments:**

    - `outputs`: the number of output channels.
    """
    (height, width), (rows, columns) = _measure(images.shape, window)
    tiles = _transform_images(images, window, rows, columns)
    products = convolve_fused(tiles, kernel, jnp.zeros(_IN**2 * outputs, images.dtype), None, _PRODUCTS, None)
    out = _transform_products(products.reshape(len(images), rows, columns, _IN, _IN, outputs))
    return out.reshape(len(images), rows * _OUT, columns * _OUT, outputs)[:, :height, :width]


def _measure(images: ImagesShape, window: Window) -> tuple[list[int], list[int]]:
    """Returns height and width of the outputs, and the number of tiles in each direction."""
    sizes = [size + sum(edges) - 2 for size, edges in zip(images[1:3], window.edges, strict=True)]
    return sizes, [-(-size // _OUT) for size in sizes]


def _count_tiles(images: ImagesShape, window: Window) -> int:
    return images[0] * prod(_measure(images, window)[1])


def _transform_images(images: Images, window: Window, rows: int, columns: int) -> Tiles:
    """Returns `B^T d B` for the input pixels `d` of each tile."""
    ends = []
    for (before, _), size, count in zip(window.edges, images.shape[1:3], (rows, columns), strict=True):
        ends.append((before, _OUT * count + 2 - before - size))
    # The barriers keep XLA from computing the padding, and each value of the first step, anew in the next step.
    padded = lax.optimization_barrier(jnp.pad(images, ((0, 0), *ends, (0, 0))))
    # Each slice is multiplied by a row or column of coefficients. A sum over stacked slices would not be vectorized.
    matrix = jnp.asarray(_B, images.dtype)
    strips = _sum(matrix[:, y, None, None] * padded[:, y : y + _OUT * rows - _OUT + 1 : _OUT, None] for y in range(_IN))
    strips = lax.optimization_barrier(strips).swapaxes(2, 3)
    tiles = _sum(
        matrix[:, x, None] * strips[:, :, x : x + _OUT * columns - _OUT + 1 : _OUT, :, None] for x in range(_IN)
    )
    # Without this barrier, XLA would write the tiles in the order of the new shape, which is much slower.
    return lax.optimization_barrier(tiles).reshape(1, -1, 1, _IN**2 * images.shape[3])


def _transform_products(products: Float[Array, "n rows columns 6 6 o"]) -> Float[Array, "n rows 4 columns 4 o"]:
    """Returns `A^T m A` for the products `m` of each tile."""
    matrix = jnp.asarray(_A, products.dtype)
    strips = _sum(matrix[:, y, None, None, None] * products[:, :, None, :, y] for y in range(_IN))
    strips = lax.optimization_barrier(strips)
    return _sum(matrix[:, x, None] * strips[:, :, :, :, x, None] for x in range(_IN))


def _sum(terms: Iterable[Array]) -> Array:
    return reduce(add, terms)
