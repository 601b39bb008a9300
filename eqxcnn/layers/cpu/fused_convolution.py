"""A primitive for inference: a convolution that also adds a bias and a shortcut and applies an activation.

On a CPU, oneDNN does all of this in one pass over the outputs. Separate operations would read and write them again.
The kernel may be packed for oneDNN; see `packed_kernel.py`.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, Literal, TypeAlias

import jax
from jax import lax
from jaxtyping import Array, Float

from ...cost import shape_of
from . import onednn
from .convolution import choose_for_cpu
from .depthwise import convolve_few_channels
from .implementation import XLA, Images, Kernel, KernelShape, Outputs, Window
from .onednn_conv import convolve_by_onednn, is_faster_by_xla
from .packed_kernel import PackedKernel, unpack
from .pointwise import POINTWISE, select_pixels
from .primitive import make_primitive
from .product import MIN_MULTIPLY_ADDS

__all__ = ["Activation", "convolve_fused", "finish", "name_fused"]

Activation: TypeAlias = Literal["relu", "relu6", "silu"]

_ACTIVATIONS = {None: lambda x: x, "relu": jax.nn.relu, "relu6": jax.nn.relu6, "silu": jax.nn.silu}
#: With fewer output channels, oneDNN adds the shortcut more slowly than XLA.
_MIN_CHANNELS_FOR_SHORTCUT = 32
#: Limits for convolutions as a sum over the kernel's pixels and the input channels: the number of terms, and, with more
#: than one channel, the approximate number of multiply-adds.
_MAX_TERMS = 27
_MAX_MULTIPLY_ADDS_BY_TAPS = 2**20
#: oneDNN's names of the activations, in XLA's `onednn_config.proto`.
_ONEDNN_NAMES: dict[Activation | None, tuple[str, ...]] = {
    None: (), "relu": ("RELU",), "relu6": ("RELU6",), "silu": ("SWISH",)
}  # fmt: skip


def convolve_fused(
    images: Images,
    kernel: Kernel | PackedKernel,
    bias: Float[Array, " o"],
    shortcut: Outputs | None,
    window: Window,
    activation: Activation | None,
) -> Outputs:
    """Returns `activation(convolve(images, kernel, window) + bias + shortcut)` in float32; it has no gradient."""
    added = (bias,) if shortcut is None else (bias, shortcut)
    return _convolve.bind(images, kernel, *added, window=window, activation=activation)


def name_fused(outputs: int, has_shortcut: bool, activation: Activation | None) -> tuple[str, ...]:
    """Returns the operations that are part of a convolution's call to oneDNN, by oneDNN's names.

    **Arguments:**

    - `outputs`: the number of output channels.
    """
    if not has_shortcut:
        return "BIAS", *_ONEDNN_NAMES[activation]
    return ("BIAS",) if outputs < _MIN_CHANNELS_FOR_SHORTCUT else ("BIAS", "BINARY_ADD", *_ONEDNN_NAMES[activation])


def finish(out: Outputs, bias: Array, activation: Activation | None, *shortcut: Outputs) -> Outputs:
    """Returns `activation(out + bias + shortcut)`, computed by XLA; there is at most one shortcut."""
    return _ACTIVATIONS[activation](sum(shortcut, out + bias[None, None, None]))


def _by_xla(
    images: Images, kernel: Array, bias: Array, *shortcut: Outputs, window: Window, activation: Activation | None
) -> Outputs:
    plain = unpack(kernel, len(bias), window.groups) if kernel.ndim == 5 else kernel
    return finish(XLA.convolve(images, plain, window), bias, activation, *shortcut)


def _on_cpu(
    images: Images,
    kernel: Array,
    bias: Array,
    *shortcut: Outputs,
    window: Window,
    activation: Activation | None,
    uses_onednn: bool,
) -> Outputs:
    if not uses_onednn and kernel.ndim == 5:
        return _by_xla(images, kernel, bias, *shortcut, window=window, activation=activation)
    if kernel.ndim == 5:
        shape = *kernel.shape[1:4], len(bias)
        return _by_onednn(images, kernel, bias, shortcut, window, activation, shape)
    if _is_faster_by_taps(images, kernel, window):
        # Without the barriers, XLA would compute the images anew for each tap, and the sum anew in a pooling layer.
        out = convolve_few_channels(lax.optimization_barrier(images), kernel, window)
        return lax.optimization_barrier(finish(out, bias, activation, *shortcut))
    chosen = choose_for_cpu(kernel.shape, window, kernel.dtype, uses_onednn)
    if uses_onednn and chosen is POINTWISE:
        pixels = select_pixels(images, window)
        if prod(pixels.shape) * kernel.shape[3] >= MIN_MULTIPLY_ADDS:
            return _multiply(pixels, kernel[0, 0], bias, shortcut, activation)
    elif uses_onednn and not is_faster_by_xla(images, kernel, window):
        return _by_onednn(images, kernel, bias, shortcut, window, activation)
    return finish(chosen.convolve(images, kernel, window), bias, activation, *shortcut)


def _is_faster_by_taps(images: Images, kernel: Array, window: Window) -> bool:
    """Returns whether a sum over the kernel's pixels is faster than oneDNN and XLA: for one channel, or one image."""
    taps, channels = prod(kernel.shape[:2]), kernel.shape[2]
    if window.groups > 1 or taps * channels > _MAX_TERMS:
        return False
    size = len(images) * prod(images.shape[1:3]) // prod(window.stride)
    return channels == 1 or (len(images) == 1 and size * prod(kernel.shape) < _MAX_MULTIPLY_ADDS_BY_TAPS)


def _by_onednn(
    images: Images,
    kernel: Array,
    bias: Array,
    shortcut: Sequence[Array],
    window: Window,
    activation: Activation | None,
    packed_shape: KernelShape | None = None,
) -> Outputs:
    fused = name_fused(len(bias), bool(shortcut), activation)
    if shortcut and "BINARY_ADD" not in fused:
        out = convolve_by_onednn(images, kernel, window, added=(bias,), fused=fused, packed_shape=packed_shape)
        return _ACTIVATIONS[activation](out + shortcut[0])
    added = bias, *shortcut
    return convolve_by_onednn(images, kernel, window, added=added, fused=fused, packed_shape=packed_shape)


def _multiply(
    pixels: Images, kernel: Array, bias: Array, shortcut: Sequence[Array], activation: Activation | None
) -> Outputs:
    channels = kernel.shape[1]
    rows = pixels.reshape(-1, pixels.shape[-1])
    # oneDNN's matrix product needs operands of two axes.
    added = [bias[None], *(each.reshape(-1, channels) for each in shortcut)]
    out = jax.ShapeDtypeStruct((len(rows), channels), rows.dtype)
    fused = "BIAS", *["BINARY_ADD"] * len(shortcut), *_ONEDNN_NAMES[activation]
    product = onednn.call_onednn("matmul", {"fusions": {"ops": fused}}, out, rows, kernel, *added)
    return product.reshape(*pixels.shape[:-1], channels)


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any) -> tuple[Array, int]:
    return jax.vmap(partial(_by_xla, **parameters), in_axes=tuple(axes))(*operands), 0


def _count(equation: Any) -> int:
    """Returns the number of multiply-adds of a jaxpr equation; the kernel is `[kh kw i o]` or packed."""
    return prod(shape_of(equation.outvars[0])) * prod(shape_of(equation.invars[1])[-4:-1])


_convolve = make_primitive("eqxcnn_fused_convolution", _on_cpu, _by_xla, _batch, _count)
