"""Batch normalization with torch's semantics."""

import math

import equinox as eqx
import jax.numpy as jnp
from beartype import beartype
from jax import lax
from jaxtyping import Array, Float, Float32, jaxtyped

from ..errors import InputError
from ..forward_pass import BATCH_AXIS
from .batch_moments import align_channels, normalize_batch, scale_and_shift

__all__ = ["BatchNorm"]


class BatchNorm(eqx.Module):
    """Normalizes each channel over batch and positions (Ioffe and Szegedy 2015), as `torch.nn.BatchNorm2d` does.

    Training mode normalizes by the mean and biased variance of the batch, and moves the running mean and variance
    toward the batch's mean and unbiased variance. Eval mode (`eqx.nn.inference_mode`) normalizes by the running
    statistics. Statistics are computed and kept in float32; the output has the dtype of the input.

    **Arguments:**

    - `num_features`: the number of channels.
    - `eps`: added to the variance.
    - `momentum`: the weight of the NEW batch, as in torch: `running = (1 - momentum) * running + momentum * batch`.
    - `use_scale`: whether each channel has a trained factor, the array `weight`, initially one.
    - `use_bias`: whether each channel has a trained offset, the array `bias`, initially zero.
    - `axis_name`: the name of the batch axis, which must be the innermost vmapped axis around the layer;
      `eqxcnn.forward` binds the default.
    - `inference`: whether to start in eval mode.

    **Raises:** `InputError` for an argument out of range.
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
        """Returns the normalized `x` and the new state; `x` is one example, an image or a plain vector of channels.

        **Raises:** `InputError` in training mode if no vmapped axis is called `axis_name`, or if the batch holds a
        single value per channel, which has no variance.
        """
        if self.inference:
            mean, var = state.get(self.running_mean), state.get(self.running_var)
            centered = x.astype(jnp.float32) - align_channels(mean, x.ndim)
            scale = lax.rsqrt(var + self.eps)
            return scale_and_shift(centered, scale, self.weight, self.bias).astype(x.dtype), state
        count = self._count_values(x)
        out, mean, var = normalize_batch(x, self.weight, self.bias, self.eps, self.axis_name)
        state = self._update(state, self.running_mean, mean)
        return out, self._update(state, self.running_var, var * (count / (count - 1)))

    def _count_values(self, x: Array) -> int:
        """Returns the number of values that each channel has in the batch."""
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
                f"BatchNorm in training needs more than one value per channel, got `x` of shape {x.shape} in a batch "
                "of 1: use a larger batch, or eval mode (`eqx.nn.inference_mode`)."
            )
        return count

    def _update(self, state: eqx.nn.State, index: eqx.nn.StateIndex, batch: Float32[Array, " c"]) -> eqx.nn.State:
        batch = lax.stop_gradient(batch)
        return state.set(index, (1 - self.momentum) * state.get(index) + self.momentum * batch)
