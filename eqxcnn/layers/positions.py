"""Layers of one vector, at each position of an image or of a row of tokens."""

from collections.abc import Callable

import jax
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped


@jaxtyped(typechecker=beartype)
def each_position(
    layer: Callable[[Float[Array, " d"]], Float[Array, " d2"]], x: Float[Array, "*positions d"]
) -> Float[Array, "*positions d2"]:
    """Applies `layer`, which takes one vector (`LayerNorm`, `eqx.nn.Linear`), to the channels at each position.

    **Arguments:**

    - `layer`: from a vector `[d]` to a vector `[d2]`, and without randomness: all positions are treated alike.
    - `x`: maps `[h w d]`, tokens `[n d]`, or a single vector `[d]`.

    **Returns:** the new vectors, `[h w d2]` for maps.
    """
    # All positions on one axis: a map over each of their axes takes longer to compile.
    out = jax.vmap(layer)(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])
