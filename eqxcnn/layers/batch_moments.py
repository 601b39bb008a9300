"""Normalization by the mean and variance of a vmapped batch, with a hand-written gradient.

With automatic differentiation, the gradient has twice as many sums, which XLA takes longer to compile.
"""

import math
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

__all__ = ["Channels", "align_channels", "normalize_batch", "scale_and_shift"]

try:
    from jax.custom_batching import custom_vmap
except ImportError:  # JAX gives no compatibility guarantee for this module
    custom_vmap = None

Channels: TypeAlias = Float32[Array, " c"]
#: Saved for the gradient: input, mean, reciprocal standard deviation, weight, bias.
_Residuals: TypeAlias = tuple[Array, Array, Array, Array | None, Array | None]


def normalize_batch(
    x: Float[Array, "*spatial c"], weight: Array | None, bias: Array | None, eps: float, axis_name: str
) -> tuple[Float[Array, "*spatial c"], Channels, Channels]:
    """Returns `x` normalized over the batch, and the batch's mean and biased variance, which carry no gradient.

    **Arguments:**

    - `x`: one example of a batch on the innermost vmapped axis.
    - `weight`, `bias`: factor and offset per channel.
    - `eps`: added to the variance.
    - `axis_name`: the name of the vmapped axis; used only if JAX has no `jax.custom_batching`.
    """
    if custom_vmap is None:
        mean, var = _compute_moments(x.astype(jnp.float32), partial(lax.pmean, axis_name=axis_name))
        centered, scale = x.astype(jnp.float32) - align_channels(mean, x.ndim), lax.rsqrt(var + eps)
        out = scale_and_shift(centered, scale, weight, bias).astype(x.dtype)
        return out, lax.stop_gradient(mean), lax.stop_gradient(var)
    results: Any = _normalize(x, weight, bias, eps)
    return results


def scale_and_shift(centered: Array, scale: Array, weight: Array | None, bias: Array | None) -> Array:
    """Returns `centered * scale * weight + bias` in float32; all but `centered` have one value per channel."""
    factor = scale if weight is None else scale * weight.astype(jnp.float32)
    out = centered * align_channels(factor, centered.ndim)
    return out if bias is None else out + align_channels(bias.astype(jnp.float32), out.ndim)


def align_channels(values: Float[Array, " c"], ndim: int) -> Float[Array, "*ones c"]:
    """Adds leading axes of size 1, because `jax_numpy_rank_promotion="raise"` forbids adding them implicitly."""
    return lax.expand_dims(values, range(ndim - 1))


def _compute_moments(x: Float32[Array, "*spatial c"], average: Any) -> tuple[Channels, Channels]:
    """Returns mean and biased variance; `average` maps values of one example to their mean over the batch."""
    mean = average(x.mean(range(x.ndim - 1)))
    # Two passes, because E[x^2] - E[x]^2 loses digits when the mean is large compared with the standard deviation.
    deviation = x - align_channels(mean, x.ndim)
    return mean, average(jnp.square(deviation).mean(range(x.ndim - 1)))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    return _forward(x, weight, bias, eps)[0]


def _forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[tuple[Array, Array, Array], _Residuals]:
    wide = x.astype(jnp.float32)
    mean, var = _compute_moments(wide, _mean_over_batch)
    scale = lax.rsqrt(var + eps)
    centered = wide - align_channels(mean, x.ndim)
    out = scale_and_shift(centered, scale, weight, bias).astype(x.dtype)
    return (out, mean, var), (x, mean, scale, weight, bias)


def _backward(
    eps: float, residuals: _Residuals, cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array | None, Array | None]:
    """Subtracts the gradient's mean and its component along the normalized `x` (Ioffe and Szegedy 2015, section 3)."""
    x, mean, scale, weight, bias = residuals
    out = cotangents[0].astype(jnp.float32)
    normalized = (x.astype(jnp.float32) - align_channels(mean, x.ndim)) * align_channels(scale, x.ndim)
    d_bias, d_weight = (values.sum(range(x.ndim - 1)) for values in (out, out * normalized))
    level, slope = (_mean_over_batch(values) / math.prod(x.shape[:-1]) for values in (d_bias, d_weight))
    centered = out - align_channels(level, x.ndim) - normalized * align_channels(slope, x.ndim)
    return (
        scale_and_shift(centered, scale, weight, None).astype(x.dtype),
        None if weight is None else d_weight.astype(weight.dtype),
        None if bias is None else d_bias.astype(bias.dtype),
    )


_normalize.defvjp(_forward, _backward)


def _mean_over_batch(values: Array) -> Array:
    """Returns the mean over the innermost vmapped axis.

    `lax.pmean` would need the axis name, but that name is not bound inside a `jax.custom_vjp` rule.
    """
    return values


if custom_vmap is not None:
    _mean_over_batch = custom_vmap(_mean_over_batch)

    @_mean_over_batch.def_vmap
    def _(size: int, is_batched: list[bool], values: Array) -> tuple[Array, bool]:
        return (values.mean(0) if is_batched[0] else values), False
