"""Convolutions by oneDNN with a bias, whose gradient is sometimes had along with the kernel's."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float

from . import onednn
from .onednn_conv import Edges, Images, Kernel, Pair, batched, by_xla, convolve, is_stem, to_kernel
from .stem_gradient import stem_gradient


def convolve_biased(
    images: Images,
    kernel: Kernel,
    bias: Float[Array, " o"],
    stride: Pair,
    edges: Edges,
    dilation: Pair,
    groups: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """`convolve`, and `bias` added to each output channel."""
    return _biased.bind(images, kernel, bias, stride=stride, edges=edges, dilation=dilation, groups=groups)


def _plain(images: Images, kernel: Kernel, bias: Array, **how: Any) -> Array:
    return by_xla(images, kernel, **how) + bias


def _by_onednn(images: Images, kernel: Kernel, bias: Array, **how: Any) -> Array:
    return convolve(images, kernel, **how) + bias


def _batched(operands: Sequence[Array], axes: Sequence[int | None], **how: Any) -> tuple[Array, int]:
    return batched(operands, axes, partial(_plain, **how), partial(_biased.bind, **how))


def _moved(values: Sequence[Array], changes: Sequence[Any], **how: Any) -> tuple[Array, Any]:
    """The rule of `jvp`: the sum of what the images change, and of what kernel and bias change together."""
    images, kernel, _ = values
    out, parts = _biased.bind(*values, **how), []
    of_images, of_kernel, of_bias = (None if type(change) is ad.Zero else change for change in changes)
    if of_images is not None:
        parts.append(convolve(of_images, kernel, **how))
    if of_kernel is not None:
        both = of_bias is not None
        parts.append(_biased.bind(images, of_kernel, of_bias, **how) if both else convolve(images, of_kernel, **how))
    elif of_bias is not None:
        parts.append(jnp.broadcast_to(of_bias, out.shape))
    return out, reduce(jnp.add, parts)


def _turned(out: Array, images: Images, kernel: Any, bias: Any, **how: Any) -> tuple[None, Array, Array]:
    """The gradients of kernel and bias, in which the rule above has it linear."""
    if is_stem(kernel.aval.shape, **how):
        return None, *stem_gradient(out, images, kernel.aval.shape[:2], how["edges"])
    return None, to_kernel(out, images, kernel, **how), out.sum((0, 1, 2))


_biased = onednn.primitive("onednn_biased_convolution", _plain, _by_onednn, _batched)
ad.primitive_jvps[_biased] = _moved
ad.primitive_transposes[_biased] = _turned
