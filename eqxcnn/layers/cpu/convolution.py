"""Convolution as a primitive whose gradients are primitives too, each with a faster implementation for CPUs.

The sum `s = sum(out * convolve(images, kernel))` is linear in each of the three arrays. Each of the three primitives is
the gradient of `s` with respect to one of the arrays, so derivatives of any order consist of these primitives. Lowering
chooses the implementation of each primitive.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array

from ...cost import shape_of
from ..sizes import Pair
from .depthwise import DEPTHWISE
from .implementation import (
    XLA,
    Images,
    Implementation,
    Kernel,
    KernelShape,
    Outputs,
    Window,
    is_by_taps,
    is_pointwise,
)
from .onednn_conv import ONEDNN, ONEDNN_DEPTHWISE
from .pointwise import POINTWISE
from .primitive import make_primitive

__all__ = [
    "batch_convolution",
    "choose_for_cpu",
    "convolve",
    "count_convolution",
    "images_gradient",
    "kernel_gradient",
]


def convolve(images: Images, kernel: Kernel, window: Window) -> Outputs:
    """Convolves a batch; differentiable any number of times."""
    return _convolve.bind(images, kernel, window=window)


def images_gradient(out: Outputs, kernel: Kernel, window: Window, size: Pair) -> Images:
    """Returns the gradient of images with height and width `size`; `out` is the gradient of the outputs."""
    return _images_gradient.bind(out, kernel, window=window, size=size)


def kernel_gradient(out: Outputs, images: Images, window: Window, shape: KernelShape) -> Kernel:
    """Returns the gradient of a kernel of shape `shape`; `out` is the gradient of the outputs."""
    return _kernel_gradient.bind(out, images, window=window, shape=shape)


def choose_for_cpu(shape: KernelShape, window: Window, dtype: jnp.dtype, uses_onednn: bool) -> Implementation:
    """Returns the fastest implementation on a CPU; all agree up to rounding."""
    if is_by_taps(shape, window, dtype):
        return ONEDNN_DEPTHWISE if dtype == jnp.float32 and uses_onednn else DEPTHWISE
    if dtype != jnp.float32 or not uses_onednn:
        return XLA
    return POINTWISE if is_pointwise(shape, window, dtype) else ONEDNN


def _convolve_on_cpu(images: Images, kernel: Kernel, *, window: Window, uses_onednn: bool) -> Outputs:
    return choose_for_cpu(kernel.shape, window, kernel.dtype, uses_onednn).convolve(images, kernel, window)


def _images_gradient_on_cpu(out: Outputs, kernel: Kernel, *, window: Window, size: Pair, uses_onednn: bool) -> Images:
    chosen = choose_for_cpu(kernel.shape, window, kernel.dtype, uses_onednn)
    return chosen.images_gradient(out, kernel, window, size)


def _kernel_gradient_on_cpu(
    out: Outputs, images: Images, *, window: Window, shape: KernelShape, uses_onednn: bool
) -> Kernel:
    return choose_for_cpu(shape, window, out.dtype, uses_onednn).kernel_gradient(out, images, window, shape)


def batch_convolution(
    operands: Sequence[Array],
    axes: Sequence[int | None],
    bind: Callable[..., Array],
    by_xla: Callable[..., Array],
) -> tuple[Array, int]:
    """The rule for `vmap`: merges a vmapped axis of the first operand into its batch axis.

    If another operand has a vmapped axis, XLA's implementation is used.
    """
    first, *others = operands
    if any(axis is not None for axis in axes[1:]):
        return jax.vmap(by_xla, in_axes=tuple(axes))(*operands), 0
    first = jnp.moveaxis(first, axes[0] or 0, 0)
    out = bind(first.reshape(-1, *first.shape[2:]), *others)
    return out.reshape(*first.shape[:2], *out.shape[1:]), 0


def _batch_convolve(operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any) -> tuple[Array, int]:
    by_xla = partial(XLA.convolve, **parameters)
    return batch_convolution(operands, axes, partial(_convolve.bind, **parameters), by_xla)


def _batch_images_gradient(
    operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any
) -> tuple[Array, int]:
    by_xla = partial(XLA.images_gradient, **parameters)
    return batch_convolution(operands, axes, partial(_images_gradient.bind, **parameters), by_xla)


def _batch_kernel_gradient(
    operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any
) -> tuple[Array, int]:
    """Uses XLA's implementation. Unlike in `batch_convolution`, the vmapped axis cannot become part of the batch axis:
    the gradient would then be summed over the vmapped axis too."""
    return jax.vmap(partial(XLA.kernel_gradient, **parameters), in_axes=tuple(axes))(*operands), 0


def count_convolution(equation: Any) -> int:
    """Returns the number of multiply-adds of a jaxpr equation.

    The equation's operands are images, a kernel `[kh kw i/groups o]`, and perhaps a bias.
    """
    kernel = shape_of(equation.invars[1])
    return prod(shape_of(equation.outvars[0])) * prod(kernel[:-1])


def _count_images_gradient(equation: Any) -> int:
    out, kernel = (shape_of(operand) for operand in equation.invars)
    return prod(out) * prod(kernel[:-1])


def _count_kernel_gradient(equation: Any) -> int:
    return prod(shape_of(equation.invars[0])) * prod(shape_of(equation.outvars[0])[:-1])


_convolve = make_primitive("eqxcnn_convolution", _convolve_on_cpu, XLA.convolve, _batch_convolve, count_convolution)
_images_gradient = make_primitive(
    "eqxcnn_convolution_images_gradient",
    _images_gradient_on_cpu,
    XLA.images_gradient,
    _batch_images_gradient,
    _count_images_gradient,
)
_kernel_gradient = make_primitive(
    "eqxcnn_convolution_kernel_gradient",
    _kernel_gradient_on_cpu,
    XLA.kernel_gradient,
    _batch_kernel_gradient,
    _count_kernel_gradient,
)
# One function per operand: each function maps the cotangent of the result to the gradient of its operand.
ad.defbilinear(
    _convolve,
    lambda out, images, kernel, window: images_gradient(out, kernel, window, images.aval.shape[1:3]),
    lambda out, images, kernel, window: kernel_gradient(out, images, window, kernel.aval.shape),
)
ad.defbilinear(
    _images_gradient,
    lambda images, out, kernel, window, size: convolve(images, kernel, window),
    lambda images, out, kernel, window, size: kernel_gradient(out, images, window, kernel.aval.shape),
)
ad.defbilinear(
    _kernel_gradient,
    lambda kernel, out, images, window, shape: convolve(images, kernel, window),
    lambda kernel, out, images, window, shape: images_gradient(out, kernel, window, images.aval.shape[1:3]),
)
