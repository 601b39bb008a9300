"""Self-attention over a sequence of tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Key
from .initializers import transformer_normal
from .linear import make_linear
from .positions import each_position

__all__ = ["Attention"]


class Attention(eqx.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2) over tokens `[n d]`, without dropout.

    Each head has `d / heads` features of every token's query, key and value. The head's output for a token is the
    average of all values, weighted by `softmax(query @ key / sqrt(d / heads) + bias)`.

    **Arguments:**

    - `dim`: the number of features `d` of a token.
    - `heads`: the number of heads, which must divide `dim`.
    - `weight_init`: a `jax.nn.initializers` initializer for both matrices. Biases start at zero.
    - `key`: the PRNG key of the initialization.

    **Raises:** `InputError` if `heads` does not divide `dim`.
    """

    qkv: eqx.nn.Linear
    proj: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, dim: int, heads: int, weight_init: Initializer = transformer_normal, *, key: Key):
        if heads < 1 or dim < 1 or dim % heads:
            raise InputError(f"`dim` (={dim}) must be a positive multiple of `heads` (={heads}).")
        qkv_key, proj_key = jax.random.split(key)
        # Rows of the matrix: queries, keys, values; within each, head by head.
        self.qkv = make_linear(dim, 3 * dim, weight_init, key=qkv_key)
        self.proj = make_linear(dim, dim, weight_init, key=proj_key)
        self.heads = heads

    @jaxtyped(typechecker=beartype)
    def __call__(
        self, tokens: Float[Array, "n d"], bias: Float[Array, "{self.heads} n n"] | None = None
    ) -> Float[Array, "n d"]:
        """Returns the new tokens; `bias[h, i, j]` is added to the score of query `i` and key `j` in head `h`.

        Scores and softmax are computed in at least float32.
        """
        n, dim = tokens.shape
        # Not `jax.nn.dot_product_attention`: on a CPU it is slower than two plain matrix products, and it computes the
        # softmax of float64 scores in float32.
        qkv = each_position(self.qkv, tokens).reshape(n, 3, self.heads, dim // self.heads)
        query, key, value = qkv.transpose(1, 2, 0, 3)  # each [heads n d/heads]
        wide = np.promote_types(qkv.dtype, np.float32)
        query = query * (dim // self.heads) ** -0.5
        scores = jnp.matmul(query, key.transpose(0, 2, 1), preferred_element_type=wide)  # [heads n n]
        if bias is not None:
            scores = scores + bias.astype(wide)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return each_position(self.proj, (weights @ value).transpose(1, 0, 2).reshape(n, dim))
