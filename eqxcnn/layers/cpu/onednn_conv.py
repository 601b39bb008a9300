"""Convolutions by oneDNN on a CPU, channels last. The gradients are computed as convolutions too."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..sizes import Edges, Pair
from . import onednn
from .depthwise import DEPTHWISE
from .implementation import XLA, Images, Implementation, Kernel, KernelShape, Outputs, Window
from .stem_gradient import stem_gradient

__all__ = ["ONEDNN", "ONEDNN_DEPTHWISE", "convolve_by_onednn", "infer_output", "is_faster_by_xla", "is_stem"]

#: The order of the kernel's axes, in the letters of `lax.conv_general_dilated`.
_KernelLayout: TypeAlias = Literal["HWIO", "IHWO"]

#: `stem_gradient` computes the gradient of kernels with at most this many values per output channel: 3x3 pixels of an
#: RGB image.
_MAX_STEM_FAN_IN = 27
#: For larger kernels, XLA computes the kernel gradient faster than oneDNN if the images have at most this many
#: channels. XLA is also faster at both gradients of strided convolutions, but slower at both gradients of grouped
#: convolutions.
_MAX_CHANNELS_FOR_XLA = 4
#: Convolutions of a single image with fewer multiply-adds are left to XLA, because each oneDNN call has a fixed cost,
#: unless the image has few channels, for which XLA is slow.
_MIN_MULTIPLY_ADDS_FOR_SINGLE_IMAGE = 2**23
_MIN_CHANNELS_OF_SINGLE_IMAGE = 5


def convolve_by_onednn(
    images: Images,
    kernel: Array,
    window: Window,
    kernel_layout: _KernelLayout = "HWIO",
    added: Sequence[Array] = (),
    fused: Sequence[str] = (),
    packed_shape: KernelShape | None = None,
) -> Outputs:
    """Convolves with oneDNN.

    **Arguments:**

    - `packed_shape`: the shape of the kernel, if `kernel` contains its values in the order in which oneDNN reads them.
    - `fused`, `added`: the operations that oneDNN applies to the outputs in the same call, by the names in XLA's
      `onednn_config.proto`, and their operands.
    """
    shape = packed_shape or kernel.shape
    plain = jax.ShapeDtypeStruct(shape, kernel.dtype)
    out = jax.eval_shape(partial(infer_output, window=window, kernel_layout=kernel_layout), images, plain)
    data = {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}
    height, width, inputs, outputs = (kernel_layout.index(axis) for axis in "HWIO")
    settings = {
        "dims": 4,
        "input": {"data": data},
        "kernel": {
            "filter": {
                "input_feature_dim": inputs,
                "output_feature_dim": outputs,
                "spatial_dims": [height, width],
                "shape": shape,
            }
        },
        "output": {"data": data},
        "window": {
            "size": [shape[height], shape[width]],
            "pad_left": [before for before, _ in window.edges],
            "pad_right": [after for _, after in window.edges],
            "strides": window.stride,
            "window_dilations": window.dilation,
        },
        "feature_groups": window.groups,
        "fusions": {"ops": list(fused)},
        "optimization_config": {"weights_prepacked": packed_shape is not None},
    }
    return onednn.call_onednn("convolution", settings, out, images, kernel, *added)


def infer_output(images: Images, kernel: Array, window: Window, kernel_layout: _KernelLayout = "HWIO") -> Outputs:
    """Returns an array of the shape of the convolution's outputs; for `jax.eval_shape`."""
    return XLA.convolve(images, jnp.moveaxis(kernel, 0, 2) if kernel_layout == "IHWO" else kernel, window)


def _images_gradient(out: Outputs, kernel: Kernel, window: Window, size: Pair) -> Images:
    """Convolves the gradient of the outputs with the flipped kernel."""
    stride, edges, dilation, groups = window
    back_edges = []
    for axis in (0, 1):
        span = dilation[axis] * (kernel.shape[axis] - 1)
        before = span - edges[axis][0]
        spread_size = (out.shape[axis + 1] - 1) * stride[axis] + 1
        back_edges.append((before, size[axis] + span - before - spread_size))
    is_plain = set(stride) == {1} and min(map(min, back_edges)) >= 0
    if not is_plain and groups == 1:
        return XLA.images_gradient(out, kernel, window, size)
    height, width, n_in, n_out = kernel.shape
    flipped = jnp.flip(kernel, (0, 1)).reshape(height, width, n_in, groups, n_out // groups)
    flipped = flipped.transpose(0, 1, 4, 3, 2).reshape(height, width, n_out // groups, groups * n_in)
    if not is_plain:
        # oneDNN multiplies the inserted zeros too, but XLA's loop over groups is even slower.
        spread = [(*edge, step - 1) for edge, step in zip(back_edges, stride, strict=True)]
        out = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
        back_edges = [(0, 0), (0, 0)]
    return convolve_by_onednn(out, flipped, Window((1, 1), (back_edges[0], back_edges[1]), dilation, groups))


def _kernel_gradient(out: Outputs, images: Images, window: Window, shape: KernelShape) -> Kernel:
    """Convolves the images with the gradient of the outputs.

    The gradient is a sum over the batch, and a convolution sums over input channels, so the batch axis becomes the
    channel axis. `out` serves as a kernel as large as the outputs. The image channels are interleaved with the columns:
    a row has `w * i` positions, and neighboring pixels are `i` positions apart. oneDNN is faster on such long rows. The
    result has `kh` rows of `kw * i` positions, which form the kernel gradient. `out` is not transposed, because oneDNN
    reorders kernels itself.
    """
    stride, edges, dilation, groups = window
    (height, width, channels, _), (count, *size, _) = shape, images.shape
    if is_stem(shape, window):
        return stem_gradient(out, images, (height, width), edges)[0]
    if set(dilation) != {1} or (groups == 1 and (set(stride) != {1} or channels <= _MAX_CHANNELS_FOR_XLA)):
        return XLA.kernel_gradient(out, images, window, shape)
    rows = images.reshape(count, *size, groups, channels).transpose(1, 2, 4, 3, 0)
    rows = rows.reshape(1, size[0], size[1] * channels, groups * count)
    row_edges: Edges = edges[0], (edges[1][0] * channels, edges[1][1] * channels)
    row_window = Window((1, 1), row_edges, (stride[0], stride[1] * channels), groups)
    found = convolve_by_onednn(rows, out, row_window, kernel_layout="IHWO")
    # If no window covers the last pixels of an axis, the result is larger than the kernel; extra values are dropped.
    return found[:, :height, : width * channels].reshape(shape)


def is_stem(kernel: KernelShape, window: Window) -> bool:
    """Returns whether `stem_gradient` should compute the gradient of a kernel of this shape."""
    return prod(kernel[:-1]) <= _MAX_STEM_FAN_IN and {*window.stride, *window.dilation, window.groups} == {1}


def _convolve_images(images: Images, kernel: Kernel, window: Window) -> Outputs:
    """Convolves with oneDNN, or with XLA if that is faster for a single image."""
    return (XLA.convolve if is_faster_by_xla(images, kernel, window) else convolve_by_onednn)(images, kernel, window)


def is_faster_by_xla(images: Images, kernel: Kernel, window: Window) -> bool:
    """Returns whether XLA convolves faster than oneDNN, which is the case for a single small image."""
    out = jax.eval_shape(partial(infer_output, window=window), images, kernel)
    is_small = out.size * prod(kernel.shape[:3]) < _MIN_MULTIPLY_ADDS_FOR_SINGLE_IMAGE
    return images.shape[0] == window.groups == 1 and is_small and kernel.shape[2] >= _MIN_CHANNELS_OF_SINGLE_IMAGE


def _depthwise_images_gradient(out: Outputs, kernel: Kernel, window: Window, size: Pair) -> Images:
    is_strided = set(window.stride) != {1}
    return (DEPTHWISE if is_strided else ONEDNN).images_gradient(out, kernel, window, size)


#: The implementation for float32.
ONEDNN = Implementation(_convolve_images, _images_gradient, _kernel_gradient)
#: The implementation for float32 and one output channel per input channel. Sums over taps are faster for the gradient
#: of kernels, and for the gradient of images at strides above one, where oneDNN would multiply the inserted zeros too.
ONEDNN_DEPTHWISE = Implementation(convolve_by_onednn, _depthwise_images_gradient, DEPTHWISE.kernel_gradient)
