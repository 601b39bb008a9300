"""Convolutions with a bias by oneDNN on a CPU.

Such convolutions have a separate primitive, because `stem_gradient` computes the gradients of kernel and bias together.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float

from ..sizes import Edges, Pair
from .onednn_conv import (
    Images,
    Kernel,
    batch_convolution,
    convolve,
    convolve_by_xla,
    count_convolution,
    is_stem,
    kernel_gradient,
)
from .onednn_primitive import make_primitive
from .stem_gradient import stem_gradient

__all__ = ["convolve_biased"]


def convolve_biased(
    images: Images,
    kernel: Kernel,
    bias: Float[Array, " o"],
    stride: Pair,
    edges: Edges,
    dilation: Pair,
    groups: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """Returns `convolve(images, kernel, ...) + bias`, one bias per output channel."""
    return _biased.bind(images, kernel, bias, stride=stride, edges=edges, dilation=dilation, groups=groups)


def _biased_by_xla(images: Images, kernel: Kernel, bias: Array, **window: Any) -> Array:
    return convolve_by_xla(images, kernel, **window) + bias[None, None, None]


def _biased_by_onednn(images: Images, kernel: Kernel, bias: Array, **window: Any) -> Array:
    return convolve(images, kernel, **window) + bias[None, None, None]


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **window: Any) -> tuple[Array, int]:
    return batch_convolution(operands, axes, partial(_biased_by_xla, **window), partial(_biased.bind, **window))


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], **window: Any) -> tuple[Array, Any]:
    """The rule for `jvp`: one term for the images' tangent, one for the tangents of kernel and bias together."""
    images, kernel, _ = primals
    out, terms = _biased.bind(*primals, **window), []
    d_images, d_kernel, d_bias = (None if type(tangent) is ad.Zero else tangent for tangent in tangents)
    if d_images is not None:
        terms.append(convolve(d_images, kernel, **window))
    if d_kernel is not None and d_bias is not None:
        terms.append(_biased.bind(images, d_kernel, d_bias, **window))
    elif d_kernel is not None:
        terms.append(convolve(images, d_kernel, **window))
    elif d_bias is not None:
        terms.append(jnp.broadcast_to(d_bias, out.shape))
    return out, reduce(jnp.add, terms)


def _transpose(out: Array, images: Images, kernel: Any, bias: Any, **window: Any) -> tuple[None, Array, Array]:
    """Returns the gradients of kernel and bias; `_jvp` binds the primitive as a linear function of both."""
    if is_stem(kernel.aval.shape, **window):
        return None, *stem_gradient(out, images, kernel.aval.shape[:2], window["edges"])
    return None, kernel_gradient(out, images, kernel, **window), out.sum((0, 1, 2))


_biased = make_primitive("onednn_biased_convolution", _biased_by_xla, _biased_by_onednn, _batch, count_convolution)
ad.primitive_jvps[_biased] = _jvp
ad.primitive_transposes[_biased] = _transpose
