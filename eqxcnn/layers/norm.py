"""Batch normalisation with torch's semantics."""

import math

import equinox as eqx
import jax.numpy as jnp
from beartype import beartype
from jax import lax
from jaxtyping import Array, Float, Float32, jaxtyped

from ..errors import InputError
from ..forward import BATCH_AXIS


class BatchNorm(eqx.Module):
    """Normalises each channel over the batch and all positions (Ioffe and Szegedy 2015); `torch.nn.BatchNorm2d`'s twin.

    In training it normalises by the batch's mean and biased variance and moves the running mean and unbiased variance
    towards the batch's; in eval mode (`eqx.nn.inference_mode`) it normalises by the running ones. Statistics are
    computed and kept in float32 whatever the input's dtype; the output has the input's dtype.

    **Arguments:**

    - `num_features`: the number of channels.
    - `eps`: added to the variance.
    - `momentum`: torch's, the weight of the NEW batch: `running = (1 - momentum) * running + momentum * batch`.
    - `use_scale`: whether each channel has a trained factor, the array `weight`, one at first.
    - `use_bias`: whether each channel has a trained offset, the array `bias`, zero at first.
    - `axis_name`: the name of the vmapped axis that holds the batch; `eqxcnn.forward` binds the default.
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
        """The normalised `x` and the new state; `x` is one example, an image or a plain vector of channels.

        **Raises:** `InputError` in training if no vmapped axis has the name `axis_name`, or if the batch holds a single
        value a channel (its variance is unknown).
        """
        wide = x.astype(jnp.float32)
        if self.inference:
            mean, var = state.get(self.running_mean), state.get(self.running_var)
        else:
            count = self._count(x)
            mean, var = _moments(wide, self.axis_name)
            state = self._move(state, self.running_mean, mean)
            state = self._move(state, self.running_var, var * (count / (count - 1)))
        scale = lax.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.astype(jnp.float32)
        out = (wide - mean) * scale
        if self.bias is not None:
            out = out + self.bias.astype(jnp.float32)
        return out.astype(x.dtype), state

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


def _moments(x: Float32[Array, "*spatial c"], axis_name: str) -> tuple[Float32[Array, " c"], Float32[Array, " c"]]:
    """Each channel's mean and biased variance, over the positions of all images of the batch."""

    def average(values: Array) -> Array:
        return lax.pmean(values.mean(range(values.ndim - 1)), axis_name)

    mean = average(x)
    # In a second pass: E[x^2] - E[x]^2 loses its digits where the mean is large against the deviation.
    return mean, average(jnp.square(x - mean))
