"""A primitive for convolution with a bias; `stem_gradient` can compute its kernel and bias gradients together."""

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float

from ...cost import shape_of
from .convolution import batch_convolution, convolve, count_convolution, kernel_gradient
from .implementation import XLA, Images, Kernel, KernelShape, Outputs, Window
from .onednn_conv import ONEDNN, is_stem
from .primitive import make_primitive
from .stem_gradient import stem_gradient

__all__ = ["convolve_biased"]

_Bias: TypeAlias = Float[Array, " o"]


def convolve_biased(images: Images, kernel: Kernel, bias: _Bias, window: Window) -> Outputs:
    """Returns `convolve(images, kernel, window) + bias` in float32, with one bias per output channel."""
    return _convolve.bind(images, kernel, bias, window=window)


def _by_xla(images: Images, kernel: Kernel, bias: _Bias, *, window: Window) -> Outputs:
    return XLA.convolve(images, kernel, window) + bias[None, None, None]


def _on_cpu(images: Images, kernel: Kernel, bias: _Bias, *, window: Window, uses_onednn: bool) -> Outputs:
    chosen = ONEDNN if uses_onednn else XLA
    return chosen.convolve(images, kernel, window) + bias[None, None, None]


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any) -> tuple[Array, int]:
    return batch_convolution(operands, axes, partial(_convolve.bind, **parameters), partial(_by_xla, **parameters))


def _gradients_by_xla(out: Outputs, images: Images, *, window: Window, shape: KernelShape) -> tuple[Kernel, _Bias]:
    return XLA.kernel_gradient(out, images, window, shape), out.sum((0, 1, 2))


def _gradients_on_cpu(
    out: Outputs, images: Images, *, window: Window, shape: KernelShape, uses_onednn: bool
) -> tuple[Kernel, _Bias]:
    if not uses_onednn:
        return _gradients_by_xla(out, images, window=window, shape=shape)
    if is_stem(shape, window):
        return stem_gradient(out, images, (shape[0], shape[1]), window.edges)
    return ONEDNN.kernel_gradient(out, images, window, shape), out.sum((0, 1, 2))


def _batch_gradients(
    operands: Sequence[Array], axes: Sequence[int | None], **parameters: Any
) -> tuple[Any, tuple[int, int]]:
    return jax.vmap(partial(_gradients_by_xla, **parameters), in_axes=tuple(axes))(*operands), (0, 0)


def _count_gradients(equation: Any) -> int:
    return prod(shape_of(equation.invars[0])) * prod(equation.params["shape"][:-1])


_convolve = make_primitive("eqxcnn_biased_convolution", _on_cpu, _by_xla, _batch, count_convolution)
_gradients = make_primitive(
    "eqxcnn_biased_convolution_gradients",
    _gradients_on_cpu,
    _gradients_by_xla,
    _batch_gradients,
    _count_gradients,
    multiple_results=True,
)


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], window: Window) -> tuple[Array, Any]:
    """The rule for `jvp`: one term for the images' tangent, one for the tangents of kernel and bias together."""
    images, kernel, bias = primals
    out, terms = convolve_biased(images, kernel, bias, window), []
    d_images, d_kernel, d_bias = (None if type(tangent) is ad.Zero else tangent for tangent in tangents)
    if d_images is not None:
        terms.append(convolve(d_images, kernel, window))
    if d_kernel is not None and d_bias is not None:
        terms.append(convolve_biased(images, d_kernel, d_bias, window))
    elif d_kernel is not None:
        terms.append(convolve(images, d_kernel, window))
    elif d_bias is not None:
        terms.append(jnp.broadcast_to(d_bias, out.shape))
    return out, reduce(jnp.add, terms)


def _transpose(out: Array, images: Images, kernel: Any, bias: Any, window: Window) -> tuple[None, Array, Array]:
    """Returns the gradients of kernel and bias; the primitive is linear in the pair of kernel and bias, see `_jvp`."""
    return None, *_gradients.bind(out, images, window=window, shape=kernel.aval.shape)


def _gradients_jvp(primals: Sequence[Array], tangents: Sequence[Any], **parameters: Any) -> tuple[Any, Any]:
    """The rule for `jvp` of the gradients, which differentiates the gradients of kernel and bias separately."""

    def separately(out: Outputs, images: Images) -> tuple[Kernel, _Bias]:
        return kernel_gradient(out, images, **parameters), out.sum((0, 1, 2))

    tangents = [ad.instantiate_zeros(tangent) for tangent in tangents]
    return _gradients.bind(*primals, **parameters), jax.jvp(separately, tuple(primals), tuple(tangents))[1]


ad.primitive_jvps[_convolve] = _jvp
ad.primitive_transposes[_convolve] = _transpose
ad.primitive_jvps[_gradients] = _gradients_jvp
