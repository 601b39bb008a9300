"""Squeeze-and-excitation: attention over channels."""

from collections.abc import Callable

import equinox as eqx
import jax
from beartype import beartype
from jaxtyping import Array, jaxtyped

from ...types import Image, Key
from ..conv import Conv
from ..initializers import he_normal_fan_out
from ..pool import global_avg_pool

__all__ = ["SqueezeExcite"]


class SqueezeExcite(eqx.Module):
    """Scales each channel by a factor computed from the means of all channels (Hu et al. 2018, section 3).

    **Arguments:**

    - `channels`: the number of channels of the maps.
    - `squeezed`: the width of the hidden layer.
    - `activation`: the activation of the hidden layer.
    - `gate`: the activation of the output layer, which gives the factors; the paper uses the logistic function.
    - `key`: the PRNG key of the initialization.
    """

    fc1: Conv
    fc2: Conv
    activation: Callable[[Array], Array] = eqx.field(static=True)
    gate: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: Callable[[Array], Array] = jax.nn.relu,
        gate: Callable[[Array], Array] = jax.nn.sigmoid,
        *,
        key: Key,
    ):
        first, second = jax.random.split(key)
        self.fc1 = Conv(channels, squeezed, 1, weight_init=he_normal_fan_out, key=first)
        self.fc2 = Conv(squeezed, channels, 1, weight_init=he_normal_fan_out, key=second)
        self.activation = activation
        self.gate = gate

    @jaxtyped(typechecker=beartype)
    def __call__(self, image: Image) -> Image:
        """Returns the scaled maps `[h w c]`."""
        means = global_avg_pool(image)[None, None]
        return image * self.gate(self.fc2(self.activation(self.fc1(means))))
