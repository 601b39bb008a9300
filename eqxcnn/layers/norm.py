"""Batch normalization with torch's semantics."""

import math
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Float32, jaxtyped

from ..errors import InputError
from ..forward_pass import BATCH_AXIS


class BatchNorm(eqx.Module):
    """Normalizes each channel over the batch and all positions (Ioffe and Szegedy 2015); `torch.nn.BatchNorm2d`'s twin.

    In training it normalizes by the batch's mean and biased variance and moves the running mean and unbiased variance
    towards the batch's; in eval mode (`eqx.nn.inference_mode`) it normalizes by the running ones. Statistics are
    computed and kept in float32 whatever the input's dtype; the output has the input's dtype.

    **Arguments:**

    - `num_features`: the number of channels.
    - `eps`: added to the variance.
    - `momentum`: torch's, the weight of the NEW batch: `running = (1 - momentum) * running + momentum * batch`.
    - `use_scale`: whether each channel has a trained factor, the array `weight`, one at first.
    - `use_bias`: whether each channel has a trained offset, the array `bias`, zero at first.
    - `axis_name`: the name of the vmapped axis that holds the batch, the innermost one around the layer;
      `eqxcnn.forward` binds the default.
    - `inference`: whether to be in eval mode.

    **Raises:** `InputError` for a value out of range.
    """

    weight: Float[Array, " c"] | None
    bias: Float[Array, " c"] | None
    running_mean: eqx.nn.StateIndex[Float32[Array, " c"]]
    running_var: eqx.nn.StateIndex[Float32[Array, " c"]]
    inference: bool
    num_features: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    axis_name: str = eqx.field(static=True)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        use_scale: bool = True,
        use_bias: bool = True,
        axis_name: str = BATCH_AXIS,
        inference: bool = False,
    ):
        if num_features < 1:
            raise InputError(f"`num_features` (={num_features}) must be at least 1.")
        if not eps >= 0:
            raise InputError(f"`eps` (={eps}) must be at least 0.")
        if not 0 <= momentum <= 1:
            raise InputError(f"`momentum` (={momentum}) is the weight of the new batch and must lie between 0 and 1.")
        self.weight = jnp.ones(num_features) if use_scale else None
        self.bias = jnp.zeros(num_features) if use_bias else None
        self.running_mean = eqx.nn.StateIndex(jnp.zeros(num_features, jnp.float32))
        self.running_var = eqx.nn.StateIndex(jnp.ones(num_features, jnp.float32))
        self.inference = inference
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.axis_name = axis_name

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, x: Float[Array, "*spatial {self.num_features}"], state: eqx.nn.State
    ) -> tuple[Float[Array, "*spatial {self.num_features}"], eqx.nn.State]:
        """The normalized `x` and the new state; `x` is one example, an image or a plain vector of channels.

        **Raises:** `InputError` in training if no vmapped axis has the name `axis_name`, or if the batch holds a single
        value a channel (its variance is unknown).
        """
        if self.inference:
            mean, var = state.get(self.running_mean), state.get(self.running_var)
            scale = lax.rsqrt(var + self.eps)
            return _scaled(x.astype(jnp.float32) - mean, scale, self.weight, self.bias).astype(x.dtype), state
        count = self._count(x)
        results: Any = _normalized(x, self.weight, self.bias, self.eps)
        out, mean, var = results
        state = self._move(state, self.running_mean, mean)
        return out, self._move(state, self.running_var, var * (count / (count - 1)))

    def _count(self, x: Array) -> int:
        """How many values of the batch share a channel."""
        try:
            images = lax.axis_size(self.axis_name)
        except NameError:
            raise InputError(
                f"BatchNorm in training needs a batch under the axis name `axis_name` (={self.axis_name!r}): call the "
                "network through `eqxcnn.forward` (or `jax.vmap` with that `axis_name`), or put it in eval mode with "
                "`eqx.nn.inference_mode`."
            ) from None
        count = images * math.prod(x.shape[:-1])
        if count == 1:
            raise InputError(
                f"BatchNorm in training needs more than one value a channel, got `x` of shape {x.shape} in a batch of "
                "1: use a larger batch, or eval mode (`eqx.nn.inference_mode`)."
            )
        return count

    def _move(self, state: eqx.nn.State, index: eqx.nn.StateIndex, batch: Float32[Array, " c"]) -> eqx.nn.State:
        batch = lax.stop_gradient(batch)
        return state.set(index, (1 - self.momentum) * state.get(index) + self.momentum * batch)


#: What a gradient needs: input, mean, one over the deviation, weight, bias.
_Kept: TypeAlias = tuple[Array, Array, Array, Array | None, Array | None]


# Automatic differentiation would give XLA twice as many sums, and it would take three times as long to compile them.
@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(
    x: Float[Array, "*spatial c"], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Float[Array, "*spatial c"], Float32[Array, " c"], Float32[Array, " c"]]:
    """`x` normalized by the moments of the batch, its mean and its biased variance, which take no gradient."""
    return _normalize(x, weight, bias, eps)[0]


def _normalize(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[tuple[Array, Array, Array], _Kept]:
    """What `_normalized` gives, and what its gradient needs."""
    wide = x.astype(jnp.float32)
    mean = _average(wide)
    # In a second pass: E[x^2] - E[x]^2 loses its digits where the mean is large against the deviation.
    var = _average(jnp.square(wide - mean))
    scale = lax.rsqrt(var + eps)
    return (_scaled(wide - mean, scale, weight, bias).astype(x.dtype), mean, var), (x, mean, scale, weight, bias)


def _gradient(
    eps: float, kept: _Kept, cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array | None, Array | None]:
    """Ioffe and Szegedy 2015, section 3: what reaches `x` has the batch's mean and its slope along `x` taken away."""
    x, mean, scale, weight, bias = kept
    out = cotangents[0].astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * scale
    of_bias, of_weight = (each.sum(range(x.ndim - 1)) for each in (out, out * normal))
    level, slope = (_over_batch(each) / math.prod(x.shape[:-1]) for each in (of_bias, of_weight))
    of_x = _scaled(out - level - normal * slope, scale, weight, None).astype(x.dtype)
    return (
        of_x,
        None if weight is None else of_weight.astype(weight.dtype),
        None if bias is None else of_bias.astype(bias.dtype),
    )


_normalized.defvjp(_normalize, _gradient)


def _scaled(centerd: Array, scale: Array, weight: Array | None, bias: Array | None) -> Array:
    out = centerd * (scale if weight is None else scale * weight.astype(jnp.float32))
    return out if bias is None else out + bias.astype(jnp.float32)


def _average(values: Float32[Array, "*spatial c"]) -> Float32[Array, " c"]:
    """Each channel's mean over the positions of all images of the batch."""
    return _over_batch(values.mean(range(values.ndim - 1)))


# `lax.pmean` in its place does not find the name of its axis in a gradient of one's own (`jax.custom_vjp`).
@custom_vmap
def _over_batch(values: Array) -> Array:
    """The mean over the innermost vmapped axis."""
    return values


@_over_batch.def_vmap
def _(size: int, batched: list[bool], values: Array) -> tuple[Array, bool]:
    return (values.mean(0) if batched[0] else values), False
