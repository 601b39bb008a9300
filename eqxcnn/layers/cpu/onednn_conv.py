"""Convolutions by oneDNN on a CPU, channels last, and their gradients, which are convolutions too."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from ...cost import shape_of
from ..sizes import Edges, Pair
from . import onednn
from .onednn_primitive import make_primitive
from .stem_gradient import stem_gradient

__all__ = [
    "Images",
    "Kernel",
    "KernelLayout",
    "batch_convolution",
    "convolve",
    "convolve_by_xla",
    "count_convolution",
    "is_stem",
    "kernel_gradient",
]

Images: TypeAlias = Float[Array, "n h w i"]
Kernel: TypeAlias = Float[Array, "kh kw _ o"]
#: The order of the kernel's axes, in the letters of `lax.conv_general_dilated`.
KernelLayout: TypeAlias = Literal["HWIO", "IHWO"]

#: A kernel with at most this many values per output channel (3x3 pixels of an RGB image) has its gradient computed by
#: `stem_gradient`.
_MAX_STEM_FAN_IN = 27
#: XLA computes the kernel gradient of larger kernels faster when images have at most this many channels. XLA is also
#: faster at both gradients of strided convolutions, but slower at all gradients of grouped convolutions.
_MAX_CHANNELS_FOR_XLA = 4


def convolve(
    images: Images,
    kernel: Array,
    stride: Pair,
    edges: Edges,
    dilation: Pair,
    groups: int = 1,
    kernel_layout: KernelLayout = "HWIO",
) -> Float[Array, "n h2 w2 o"]:
    """Returns `lax.conv_general_dilated` of a float32 batch; differentiable any number of times.

    **Arguments:**

    - `stride`, `dilation`: `(height, width)` pairs.
    - `edges`: the zeros added before and after the height and the width, none of them negative.
    - `groups`: the number of groups of channels that are convolved separately.
    - `kernel_layout`: the order of the kernel's axes.
    """
    return _convolution.bind(
        images, kernel, stride=stride, edges=edges, dilation=dilation, groups=groups, kernel_layout=kernel_layout
    )


def convolve_by_xla(
    images: Images,
    kernel: Array,
    *,
    stride: Pair,
    edges: Edges,
    dilation: Pair,
    groups: int,
    kernel_layout: KernelLayout = "HWIO",
) -> Array:
    """Returns the result of `convolve`, computed by XLA."""
    layouts = ("NHWC", kernel_layout, "NHWC")
    return lax.conv_general_dilated(
        images, kernel, stride, edges, rhs_dilation=dilation, dimension_numbers=layouts, feature_group_count=groups
    )


def _convolve_by_onednn(images: Images, kernel: Array, *, kernel_layout: KernelLayout, **window: Any) -> Array:
    out = jax.eval_shape(partial(convolve_by_xla, kernel_layout=kernel_layout, **window), images, kernel)
    data = {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}
    height, width, inputs, outputs = (kernel_layout.index(axis) for axis in "HWIO")
    settings = {
        "dims": 4,
        "input": {"data": data},
        "kernel": {
            "filter": {"input_feature_dim": inputs, "output_feature_dim": outputs, "spatial_dims": [height, width]}
        },
        "output": {"data": data},
        "window": {
            "size": [kernel.shape[height], kernel.shape[width]],
            "pad_left": [before for before, _ in window["edges"]],
            "pad_right": [after for _, after in window["edges"]],
            "strides": window["stride"],
            "window_dilations": window["dilation"],
        },
        "feature_groups": window["groups"],
    }
    return onednn.call_onednn("convolution", settings, out, images, kernel)


def batch_convolution(
    operands: Sequence[Array],
    axes: Sequence[int | None],
    by_xla: Callable[..., Array],
    by_onednn: Callable[..., Array],
) -> tuple[Array, int]:
    """The rule for `vmap`: batches of images become one larger batch; batches of kernels are left to XLA."""
    images, *others = operands
    if any(axis is not None for axis in axes[1:]):
        return jax.vmap(by_xla, in_axes=tuple(axes))(*operands), 0
    images = jnp.moveaxis(images, axes[0] or 0, 0)
    out = by_onednn(images.reshape(-1, *images.shape[2:]), *others)
    return out.reshape(*images.shape[:2], *out.shape[1:]), 0


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **window: Any) -> tuple[Array, int]:
    by_xla, by_onednn = partial(convolve_by_xla, **window), partial(_convolution.bind, **window)
    return batch_convolution(operands, axes, by_xla, by_onednn)


def _images_gradient(out: Array, images: Any, kernel: Array, *, kernel_layout: KernelLayout, **window: Any) -> Array:
    """Returns the gradient of the images: the gradient `out` of the outputs, convolved with the flipped kernel."""
    if kernel_layout == "IHWO":
        kernel = jnp.moveaxis(kernel, 0, 2)
    stride, edges, dilation, groups = (window[name] for name in ("stride", "edges", "dilation", "groups"))
    back_edges = []
    for axis in (0, 1):
        span = dilation[axis] * (kernel.shape[axis] - 1)
        before = span - edges[axis][0]
        spread_size = (out.shape[axis + 1] - 1) * stride[axis] + 1
        back_edges.append((before, images.aval.shape[axis + 1] + span - before - spread_size))
    is_plain = set(stride) == {1} and min(map(min, back_edges)) >= 0
    if not is_plain and groups == 1:
        return jax.linear_transpose(lambda images: convolve_by_xla(images, kernel, **window), images.aval)(out)[0]
    height, width, n_in, n_out = kernel.shape
    flipped = jnp.flip(kernel, (0, 1)).reshape(height, width, n_in, groups, n_out // groups)
    flipped = flipped.transpose(0, 1, 4, 3, 2).reshape(height, width, n_out // groups, groups * n_in)
    if not is_plain:
        # oneDNN multiplies the zeros between strided outputs too, but XLA's loop over groups is slower still.
        spread = [(*edge, step - 1) for edge, step in zip(back_edges, stride, strict=True)]
        out = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
        back_edges = [(0, 0), (0, 0)]
    return convolve(out, flipped, (1, 1), (back_edges[0], back_edges[1]), dilation, groups)


def kernel_gradient(
    out: Array, images: Images, kernel: Any, *, kernel_layout: KernelLayout = "HWIO", **window: Any
) -> Array:
    """Returns the gradient of the kernel: the images convolved with `out`, the gradient of the outputs.

    The sum over the batch is a sum over input channels here, so the batch axis becomes the channel axis, and `out`
    serves as a kernel as large as the outputs. The images' own channels are interleaved with their columns: a row has
    `w * i` positions, and neighboring pixels are `i` positions apart. oneDNN is faster on such long rows. The result
    has `kh` rows of `kw * i` positions, which form the kernel. `out` keeps its layout because oneDNN reorders kernels
    itself.
    """
    if kernel_layout == "IHWO":
        moved = jax.eval_shape(partial(jnp.moveaxis, source=0, destination=2), kernel.aval)
        return jnp.moveaxis(kernel_gradient(out, images, ad.UndefinedPrimal(moved), **window), 2, 0)
    stride, edges, dilation, groups = (window[name] for name in ("stride", "edges", "dilation", "groups"))
    (height, width, channels, _), (count, *size, _) = kernel.aval.shape, images.shape
    if is_stem(kernel.aval.shape, **window):
        return stem_gradient(out, images, (height, width), edges)[0]
    if set(dilation) != {1} or (groups == 1 and (set(stride) != {1} or channels <= _MAX_CHANNELS_FOR_XLA)):
        return jax.linear_transpose(lambda kernel: convolve_by_xla(images, kernel, **window), kernel.aval)(out)[0]
    rows = images.reshape(count, *size, groups, channels).transpose(1, 2, 4, 3, 0)
    rows = rows.reshape(1, size[0], size[1] * channels, groups * count)
    row_edges = edges[0], (edges[1][0] * channels, edges[1][1] * channels)
    out_dilation = stride[0], stride[1] * channels
    found = convolve(rows, out, (1, 1), row_edges, out_dilation, groups, kernel_layout="IHWO")
    # If the stride leaves pixels over at the end of an axis, the result has positions beyond the kernel: drop them.
    return found[:, :height, : width * channels].reshape(kernel.aval.shape)


def is_stem(kernel: tuple[int, ...], *, stride: Pair, edges: Edges, dilation: Pair, groups: int) -> bool:
    """Returns whether `stem_gradient` should compute the gradient of a kernel of this shape."""
    return prod(kernel[:-1]) <= _MAX_STEM_FAN_IN and {*stride, *dilation, groups} == {1}


def count_convolution(equation: Any) -> int:
    """Returns the multiply-adds of a jaxpr equation with images, kernel `[kh kw i/groups o]`, and perhaps a bias."""
    kernel = shape_of(equation.invars[1])
    return prod(shape_of(equation.outvars[0])) * prod(kernel) // kernel[-1]


_convolution = make_primitive("onednn_convolution", convolve_by_xla, _convolve_by_onednn, _batch, count_convolution)
ad.defbilinear(_convolution, _images_gradient, kernel_gradient)
