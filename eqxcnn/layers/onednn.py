"""Convolutions by oneDNN on a CPU: the library PyTorch has them from, which jaxlib carries and XLA does not call.

XLA's compiler leaves convolutions to Eigen. The calls that it once made to oneDNN instead, which is quicker, are still
carried out by the jaxlib versions named here; they are no interface of JAX, so no other version is trusted with them.
"""

import json
import os
import platform
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Pair: TypeAlias = tuple[int, int]
Edges: TypeAlias = tuple[Pair, Pair]
Images: TypeAlias = Float[Array, "n h w i"]
Kernel: TypeAlias = Float[Array, "kh kw _ o"]

#: Where what is called here was tried, forward and backward (`tests/test_onednn.py`).
_JAXLIBS = ("0.10.2", "0.12.0.1")
_TARGET = "__onednn$convolution"
#: At the kernel's gradient XLA is the quicker one up to so many channels of the images: those of a photograph. So it is
#: at both gradients of strided convolutions, timed alone; but nowhere where channels are in groups.
_FEW = 4


def is_here() -> bool:
    """Whether convolutions can be given to oneDNN: nobody said no, and jaxlib and machine are known to take them.

    A program with such a call cannot be stored, so that JAX's cache of compiled programs on disk must be off; and one
    that several devices share would run the whole call on each of them, so there must be one.
    """
    wanted = os.environ.get("EQXCNN_ONEDNN", "1") != "0"
    stores = getattr(jax.config, "jax_compilation_cache_dir", None)
    return wanted and not stores and jax.device_count() == 1 and _is_known()


@cache
def _is_known() -> bool:
    machine = platform.system(), platform.machine()
    if jaxlib.version.__version__ not in _JAXLIBS or machine != ("Linux", "x86_64") or jax.default_backend() != "cpu":
        return False
    how = {"stride": (1, 1), "edges": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    tried = jax.ShapeDtypeStruct((1, 1, 1, 1), jnp.float32)
    try:
        jax.jit(partial(_by_onednn, **how)).lower(tried, tried).compile()
    except jax.errors.JaxRuntimeError:
        # Some build their jaxlib without it.
        return False
    return True


def convolve(
    images: Images, kernel: Kernel, stride: Pair, edges: Edges, dilation: Pair, groups: int = 1
) -> Float[Array, "n h2 w2 o"]:
    """What `lax.conv_general_dilated` gives for a batch, channels last, in float32; differentiable as often.

    **Arguments:**

    - `images`, `kernel`: a batch, and what is moved over each of its images, or of groups of their channels.
    - `stride`, `dilation`: of the kernel, `(height, width)` pairs.
    - `edges`: the zeros added before and after the height and the width, none of them negative.
    - `groups`: how many of them there are, which do not see each other.
    """
    return _convolution.bind(images, kernel, stride=stride, edges=edges, dilation=dilation, groups=groups)


def _by_xla(images: Images, kernel: Kernel, *, stride: Pair, edges: Edges, dilation: Pair, groups: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        images, kernel, stride, edges, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
    )


def _by_onednn(images: Images, kernel: Kernel, *, stride: Pair, edges: Edges, dilation: Pair, groups: int) -> Array:
    call = partial(_by_xla, stride=stride, edges=edges, dilation=dilation, groups=groups)
    data = {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}
    config = {
        "dims": 4,
        "input": {"data": data},
        "kernel": {"filter": {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1]}},
        "output": {"data": data},
        "window": {
            "size": kernel.shape[:2],
            "pad_left": [before for before, _ in edges],
            "pad_right": [after for _, after in edges],
            "strides": stride,
            "window_dilations": dilation,
        },
        "feature_groups": groups,
    }
    return jax.ffi.ffi_call(
        _TARGET,
        jax.eval_shape(call, images, kernel),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )(images, kernel)


def _batched(operands: Sequence[Array], axes: Sequence[int | None], **how: Any) -> tuple[Array, int]:
    """The rule of `vmap`: one larger batch of images, or else what XLA makes of it."""
    images, kernel = operands
    if axes[1] is not None:
        return jax.vmap(partial(_by_xla, **how), in_axes=tuple(axes))(images, kernel), 0
    images = jnp.moveaxis(images, axes[0] or 0, 0)
    out = _convolution.bind(images.reshape(-1, *images.shape[2:]), kernel, **how)
    return out.reshape(*images.shape[:2], *out.shape[1:]), 0


def _to_images(out: Array, images: Any, kernel: Kernel, **how: Any) -> Array:
    """The gradient of the images: a plain convolution with the kernel turned round, the other way."""
    stride, edges, dilation, groups = (how[name] for name in ("stride", "edges", "dilation", "groups"))
    back = []
    for axis in (0, 1):
        span = dilation[axis] * (kernel.shape[axis] - 1)
        before = span - edges[axis][0]
        reached = (out.shape[axis + 1] - 1) * stride[axis] + 1
        back.append((before, images.aval.shape[axis + 1] + span - before - reached))
    is_plain = set(stride) == {1} and min(map(min, back)) >= 0
    if not is_plain and groups == 1:
        return jax.linear_transpose(lambda images: _by_xla(images, kernel, **how), images.aval)(out)[0]
    height, width, n_in, n_out = kernel.shape
    turned = jnp.flip(kernel, (0, 1)).reshape(height, width, n_in, groups, n_out // groups)
    turned = turned.transpose(0, 1, 4, 3, 2).reshape(height, width, n_out // groups, groups * n_in)
    if not is_plain:
        # Zeros between the outputs are multiplied for nothing, which is still quicker than XLA's loop over groups.
        spread = [(*edge, step - 1) for edge, step in zip(back, stride, strict=True)]
        out, back = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), *spread, (0, 0, 0)]), [(0, 0), (0, 0)]
    return convolve(out, turned, (1, 1), (back[0], back[1]), dilation, groups)


def _to_kernel(out: Array, images: Images, kernel: Any, **how: Any) -> Array:
    """The gradient of the kernel: a convolution of the images with `out`, over batch and positions.

    The batch serves as channels. Those of the images lie within the rows' positions, so that a step of one position is
    one of so many, and the outputs are the kernel's columns with all their channels: oneDNN likes long rows.
    """
    stride, edges, dilation, groups = (how[name] for name in ("stride", "edges", "dilation", "groups"))
    (height, width, channels, _), (count, *size, _) = kernel.aval.shape, images.shape
    if set(dilation) != {1} or (groups == 1 and (set(stride) != {1} or channels <= _FEW)):
        return jax.linear_transpose(lambda kernel: _by_xla(images, kernel, **how), kernel.aval)(out)[0]
    rows = images.reshape(count, *size, groups, channels).transpose(1, 2, 4, 3, 0)
    rows = rows.reshape(1, size[0], size[1] * channels, groups * count)
    within = edges[0], (edges[1][0] * channels, edges[1][1] * channels)
    steps = stride[0], stride[1] * channels
    found = convolve(rows, jnp.moveaxis(out, 0, 2), (1, 1), within, steps, groups)
    # Where the stride leaves pixels over at the end, it gives more than the kernel has.
    return found[:, :height, : width * channels].reshape(kernel.aval.shape)


@cache
def _compiled(**how: Any) -> Any:
    return jax.jit(partial(_convolution.bind, **how))


_convolution = Primitive("onednn_convolution")
_convolution.def_impl(lambda *operands, **how: _compiled(**how)(*operands))
_convolution.def_abstract_eval(
    lambda images, kernel, **how: ShapedArray(
        jax.eval_shape(partial(_by_xla, **how), images, kernel).shape, images.dtype
    )
)
batching.primitive_batchers[_convolution] = _batched
ad.defbilinear(_convolution, _to_images, _to_kernel)


def _lowered(context: mlir.LoweringRuleContext, *operands: Any, **how: Any) -> Any:
    # An exported program may be run by a jaxlib that knows nothing of this.
    is_plain = context.module_context.lowering_parameters.for_export
    return mlir.lower_fun(_by_xla if is_plain else _by_onednn, multiple_results=False)(context, *operands, **how)


mlir.register_lowering(_convolution, mlir.lower_fun(_by_xla, multiple_results=False))
mlir.register_lowering(_convolution, _lowered, platform="cpu")
