"""Vector layers applied at each position of an image or of a sequence of tokens."""

from collections.abc import Callable

import jax
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

__all__ = ["each_position"]


@jaxtyped(typechecker=beartype)
def each_position(
    layer: Callable[[Float[Array, " d"]], Float[Array, " d2"]], x: Float[Array, "*positions d"]
) -> Float[Array, "*positions d2"]:
    """Applies a layer that takes one vector (`LayerNorm`, `eqx.nn.Linear`) to the channels at each position.

    **Arguments:**

    - `layer`: maps a vector `[d]` to a vector `[d2]`, without randomness.
    - `x`: maps `[h w d]`, tokens `[n d]`, or a single vector `[d]`.

    **Returns:** the new vectors, for example `[h w d2]` for maps.
    """
    # One flat axis of positions: nested `vmap`s take longer to compile.
    out = jax.vmap(layer)(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])
