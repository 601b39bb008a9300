"""The interface for a convolution and its two gradients, and XLA's implementation of the interface."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..sizes import Edges, Pair

__all__ = [
    "XLA",
    "Images",
    "ImagesShape",
    "Implementation",
    "Kernel",
    "KernelShape",
    "Outputs",
    "Window",
    "implement",
    "is_by_taps",
    "is_pointwise",
]

Images: TypeAlias = Float[Array, "n h w i"]
Kernel: TypeAlias = Float[Array, "kh kw _ o"]
Outputs: TypeAlias = Float[Array, "n h2 w2 o"]
#: Number of images, height, width, channels.
ImagesShape: TypeAlias = tuple[int, ...]
#: Height, width, input channels per group, output channels.
KernelShape: TypeAlias = tuple[int, ...]

#: Kernels with more pixels than this are left to XLA, because a sum of so many terms would take minutes to compile.
_MAX_TAPS = 256


class Window(NamedTuple):
    """Where a kernel is applied to an image.

    - `stride`, `dilation`: `(height, width)` pairs.
    - `edges`: the number of zeros added before and after the height and the width, each at least 0.
    - `groups`: the number of groups of channels that are convolved separately.
    """

    stride: Pair
    edges: Edges
    dilation: Pair
    groups: int


class Implementation(NamedTuple):
    """A convolution and its two gradients, each a function of two arrays.

    - `convolve(images, kernel, window)`
    - `images_gradient(out, kernel, window, size)`: the gradient of the images; `size` is their height and width.
    - `kernel_gradient(out, images, window, shape)`: the gradient of the kernel; `shape` is its shape.

    `out` is the gradient of the outputs.
    """

    convolve: Callable[[Images, Kernel, Window], Outputs]
    images_gradient: Callable[[Outputs, Kernel, Window, Pair], Images]
    kernel_gradient: Callable[[Outputs, Images, Window, KernelShape], Kernel]


def is_by_taps(shape: KernelShape, window: Window, dtype: jnp.dtype) -> bool:
    """Returns whether a CPU computes the convolution as a sum over the kernel's pixels (`depthwise.py`)."""
    is_depthwise = window.groups == shape[3] > 1 and shape[2] == 1
    return is_depthwise and dtype.itemsize >= 4 and prod(shape[:2]) <= _MAX_TAPS


def is_pointwise(shape: KernelShape, window: Window, dtype: jnp.dtype) -> bool:
    """Returns whether a CPU with oneDNN computes the convolution as a matrix product (`pointwise.py`)."""
    return window.groups == 1 and shape[:2] == (1, 1) and dtype == jnp.float32


def _convolve(images: Images, kernel: Kernel, window: Window) -> Outputs:
    return lax.conv_general_dilated(
        images,
        kernel,
        window.stride,
        window.edges,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=window.groups,
    )


def implement(convolve: Callable[[Images, Kernel, Window], Outputs]) -> Implementation:
    """Returns an implementation that derives the gradients of `convolve` by automatic differentiation."""

    def images_gradient(out: Outputs, kernel: Kernel, window: Window, size: Pair) -> Images:
        images = jax.ShapeDtypeStruct((len(out), *size, kernel.shape[2] * window.groups), out.dtype)
        return jax.linear_transpose(lambda images: convolve(images, kernel, window), images)(out)[0]

    def kernel_gradient(out: Outputs, images: Images, window: Window, shape: KernelShape) -> Kernel:
        kernel = jax.ShapeDtypeStruct(shape, out.dtype)
        return jax.linear_transpose(lambda kernel: convolve(images, kernel, window), kernel)(out)[0]

    return Implementation(convolve, images_gradient, kernel_gradient)


#: The implementation by plain JAX operations, for any platform.
XLA = implement(_convolve)
