"""Dense layers whose first weights follow a scheme."""

import equinox as eqx
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from ..types import Key


def linear(n_in: int, n_out: int, weight_init: Initializer, *, key: Key) -> eqx.nn.Linear:
    """A dense layer with zero bias and a matrix drawn by `weight_init`, which sees its shape as `[in out]`."""
    # Abstract first: Equinox's own random values would be drawn for nothing.
    layer = eqx.filter_eval_shape(eqx.nn.Linear, n_in, n_out, key=key)
    weight = weight_init(key, (n_in, n_out)).T
    return eqx.tree_at(lambda each: (each.weight, each.bias), layer, (weight, jnp.zeros(n_out, weight.dtype)))
