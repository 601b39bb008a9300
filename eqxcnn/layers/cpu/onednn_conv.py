"""Convolutions by oneDNN on a CPU, channels last."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from . import onednn
from .stem_gradient import stem_gradient

Pair: TypeAlias = tuple[int, int]
Edges: TypeAlias = tuple[Pair, Pair]
Images: TypeAlias = Float[Array, "n h w i"]
Kernel: TypeAlias = Float[Array, "kh kw _ o"]
Call: TypeAlias = Callable[..., Array]
#: What a kernel's axes are, as `lax` names them.
Order: TypeAlias = Literal["HWIO", "IHWO"]

#: Numbers of a filter up to which the kernel's gradient is a product of matrices: 3x3 of a photograph's three channels.
_STEM = 27
#: Otherwise XLA is the quicker one at it up to so many channels of the images. So it is at both gradients of strided
#: convolutions, timed alone; but nowhere where channels are in groups.
_FEW = 4


def convolve(
    images: Images,
    kernel: Array,
    stride: Pair,
    edges: Edges,
    dilation: Pair,
    groups: int = 1,
    order: Order = "HWIO",
) -> Float[Array, "n h2 w2 o"]:
    """What `lax.conv_general_dilated` gives for a batch, channels last, in float32; differentiable as often.

    **Arguments:**

    - `images`, `kernel`: a batch, and what is moved over each of its images, or of groups of their channels.
    - `stride`, `dilation`: of the kernel, `(height, width)` pairs.
    - `edges`: the zeros added before and after the height and the width, none of them negative.
    - `groups`: how many of them there are, which do not see each other.
    - `order`: what the kernel's four axes are.
    """
    how = {"stride": stride, "edges": edges, "dilation": dilation, "groups": groups, "order": order}
    return _convolution.bind(images, kernel, **how)


def by_xla(
    images: Images, kernel: Array, *, stride: Pair, edges: Edges, dilation: Pair, groups: int, order: Order = "HWIO"
) -> Array:
    """The same by XLA."""
    layout = ("NHWC", order, "NHWC")
    return lax.conv_general_dilated(
        images, kernel, stride, edges, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
    )


def _by_onednn(
    images: Images, kernel: Array, *, stride: Pair, edges: Edges, dilation: Pair, groups: int, order: Order
) -> Array:
    call = partial(by_xla, stride=stride, edges=edges, dilation=dilation, groups=groups, order=order)
    data = {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}
    height, width, inputs, outputs = (order.index(axis) for axis in "HWIO")
    config = {
        "dims": 4,
        "input": {"data": data},
        "kernel": {
            "filter": {"input_feature_dim": inputs, "output_feature_dim": outputs, "spatial_dims": [height, width]}
        },
        "output": {"data": data},
        "window": {
            "size": [kernel.shape[height], kernel.shape[width]],
            "pad_left": [before for before, _ in edges],
            "pad_right": [after for _, after in edges],
            "strides": stride,
            "window_dilations": dilation,
        },
        "feature_groups": groups,
    }
    return onednn.call("convolution", config, jax.eval_shape(call, images, kernel), images, kernel)


def batched(operands: Sequence[Array], axes: Sequence[int | None], by_xla: Call, call: Call) -> tuple[Array, int]:
    """The rule of `vmap`: one larger batch of images, or else what XLA makes of it."""
    images, *others = operands
    if any(axis is not None for axis in axes[1:]):
        return jax.vmap(by_xla, in_axes=tuple(axes))(*operands), 0
    images = jnp.moveaxis(images, axes[0] or 0, 0)
    out = call(images.reshape(-1, *images.shape[2:]), *others)
    return out.reshape(*images.shape[:2], *out.shape[1:]), 0


def _batched(operands: Sequence[Array], axes: Sequence[int | None], **how: Any) -> tuple[Array, int]:
    return batched(operands, axes, partial(by_xla, **how), partial(_convolution.bind, **how))


def _to_images(out: Array, images: Any, kernel: Array, *, order: Order, **how: Any) -> Array:
    """The gradient of the images: a plain convolution with the kernel turned round, the other way."""
    if order == "IHWO":
        kernel = jnp.moveaxis(kernel, 0, 2)
    stride, edges, dilation, groups = (how[name] for name in ("stride", "edges", "dilation", "groups"))
    back = []
    for axis in (0, 1):
        span = dilation[axis] * (kernel.shape[axis] - 1)
        before = span - edges[axis][0]
        reached = (out.shape[axis + 1] - 1) * stride[axis] + 1
        back.append((before, images.aval.shape[axis + 1] + span - before - reached))
    is_plain = set(stride) == {1} and min(map(min, back)) >= 0
    if not is_plain and groups == 1:
        return jax.linear_transpose(lambda images: by_xla(images, kernel, **how), images.aval)(out)[0]
    height, width, n_in, n_out = kernel.shape
    turned = jnp.flip(kernel, (0, 1)).reshape(height, width, n_in, groups, n_out // groups)
    turned = turned.transpose(0, 1, 4, 3, 2).reshape(height, width, n_out // groups, groups * n_in)
    if not is_plain:
        # Zeros between the outputs are multiplied for nothing, which is still quicker than XLA's loop over groups.
        spread = [(*edge, step - 1) for edge, step in zip(back, stride, strict=True)]
        out, back = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), *spread, (0, 0, 0)]), [(0, 0), (0, 0)]
    return convolve(out, turned, (1, 1), (back[0], back[1]), dilation, groups)


def to_kernel(out: Array, images: Images, kernel: Any, *, order: Order = "HWIO", **how: Any) -> Array:
    """The gradient of the kernel: a convolution of the images with `out`, over batch and positions.

    The batch serves as channels. Those of the images lie within the rows' positions, so that a step of one position is
    one of so many, and the outputs are the kernel's columns with all their channels: oneDNN likes long rows. It sorts
    a kernel's numbers itself, so that `out` is given as it lies.
    """
    if order == "IHWO":
        turned = jax.eval_shape(partial(jnp.moveaxis, source=0, destination=2), kernel.aval)
        return jnp.moveaxis(to_kernel(out, images, ad.UndefinedPrimal(turned), **how), 2, 0)
    stride, edges, dilation, groups = (how[name] for name in ("stride", "edges", "dilation", "groups"))
    (height, width, channels, _), (count, *size, _) = kernel.aval.shape, images.shape
    if is_stem(kernel.aval.shape, **how):
        return stem_gradient(out, images, (height, width), edges)[0]
    if set(dilation) != {1} or (groups == 1 and (set(stride) != {1} or channels <= _FEW)):
        return jax.linear_transpose(lambda kernel: by_xla(images, kernel, **how), kernel.aval)(out)[0]
    rows = images.reshape(count, *size, groups, channels).transpose(1, 2, 4, 3, 0)
    rows = rows.reshape(1, size[0], size[1] * channels, groups * count)
    within = edges[0], (edges[1][0] * channels, edges[1][1] * channels)
    steps = stride[0], stride[1] * channels
    found = convolve(rows, out, (1, 1), within, steps, groups, order="IHWO")
    # Where the stride leaves pixels over at the end, it gives more than the kernel has.
    return found[:, :height, : width * channels].reshape(kernel.aval.shape)


def is_stem(kernel: tuple[int, ...], *, stride: Pair, edges: Edges, dilation: Pair, groups: int) -> bool:
    """Whether the gradient of a kernel of this shape is best taken by `stem_gradient`."""
    return prod(kernel[:-1]) <= _STEM and {*stride, *dilation, groups} == {1}


_convolution = onednn.primitive("onednn_convolution", by_xla, _by_onednn, _batched)
ad.defbilinear(_convolution, _to_images, to_kernel)
