"""Dense layers: `eqx.nn.Linear` with a faster matrix product on a CPU."""

import equinox as eqx
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array

from ..types import Key
from .cpu.availability import can_use_primitives

__all__ = ["Linear", "make_linear"]


class Linear(eqx.nn.Linear):
    """`eqx.nn.Linear`; a program for a CPU uses oneDNN if the product is large enough to benefit."""

    def __init__(self, in_features: int, out_features: int, use_bias: bool = True, *, key: Key):
        """Draws weights and bias as Equinox does: uniform up to `in_features ** -0.5`."""
        super().__init__(in_features, out_features, use_bias, key=key)

    def __call__(self, x: Array, *, key: Key | None = None) -> Array:
        """Maps a vector `[in_features]` to `[out_features]`; `key` is ignored, as in Equinox."""
        is_float32_vector = x.ndim == 1 and x.dtype == self.weight.dtype == jnp.float32
        if not (is_float32_vector and can_use_primitives()):
            return super().__call__(x, key=key)
        # Imported here, because `product` needs private parts of JAX.
        from .cpu.product import matrix_product

        out = matrix_product(x[None], self.weight, transpose_right=True)[0]
        return out if self.bias is None else out + self.bias


def make_linear(in_features: int, out_features: int, weight_init: Initializer, *, key: Key) -> Linear:
    """Builds a `Linear` with zero bias and a weight drawn by `weight_init` in the shape `[in out]`."""
    # Only shapes are evaluated, so Equinox's random values are never computed.
    layer = eqx.filter_eval_shape(Linear, in_features, out_features, key=key)
    weight = weight_init(key, (in_features, out_features)).T
    return eqx.tree_at(
        lambda linear: (linear.weight, linear.bias), layer, (weight, jnp.zeros(out_features, weight.dtype))
    )
