"""Dense layers: Equinox's own, but for who multiplies, and one whose first weights follow a scheme."""

import equinox as eqx
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array

from ..types import Key
from .cpu import onednn
from .cpu.onednn_product import product


class Linear(eqx.nn.Linear):
    """`eqx.nn.Linear`, multiplied by oneDNN on a CPU where the batch is worth it."""

    def __init__(self, in_features: int, out_features: int, use_bias: bool = True, *, key: Key):
        """Weights and bias are drawn as Equinox draws them: uniform up to `in_features ** -0.5`."""
        super().__init__(in_features, out_features, use_bias, key=key)

    def __call__(self, x: Array, *, key: Key | None = None) -> Array:
        """The vector `[out]` that the layer makes of `[in]`; `key` is not used, as in Equinox."""
        is_single = x.ndim == 1 and x.dtype == self.weight.dtype == jnp.float32
        if not (is_single and onednn.is_available()):
            return super().__call__(x, key=key)
        out = product(x[None], self.weight, right_turned=True)[0]
        return out if self.bias is None else out + self.bias


def make_linear(n_in: int, n_out: int, weight_init: Initializer, *, key: Key) -> Linear:
    """A dense layer with zero bias and a matrix drawn by `weight_init`, which sees its shape as `[in out]`."""
    # Abstract first: Equinox's own random values would be drawn for nothing.
    layer = eqx.filter_eval_shape(Linear, n_in, n_out, key=key)
    weight = weight_init(key, (n_in, n_out)).T
    return eqx.tree_at(lambda each: (each.weight, each.bias), layer, (weight, jnp.zeros(n_out, weight.dtype)))
