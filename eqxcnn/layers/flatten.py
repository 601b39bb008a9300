"""From maps to the vector that a dense layer takes."""

import equinox as eqx
import jax
from jax import lax
from jaxtyping import Array, Float

from ..errors import InputError
from ..types import Image

#: Channels of an image as it came, which takes little to compute.
_FEW = 4


def flatten_for(layer: eqx.nn.Linear, maps: Image) -> Float[Array, " n"]:
    """The values of `maps` `[h w c]` in a row, as `layer` takes them.

    **Raises:** `InputError` when there are more or fewer: the image is not of the size that the model was built for.
    """
    if maps.size != layer.in_features:
        raise InputError(
            f"`image` is not of the size that the model was built for: its maps of shape {maps.shape} have {maps.size} "
            f"values and the dense layer takes {layer.in_features}; resize it, or build the model with its `image_size`"
        )
    if jax.default_backend() == "cpu" and maps.shape[-1] > _FEW:
        # XLA would make the vector in the same loop as the maps, and reckon the place of each value on its own.
        maps = lax.optimization_barrier(maps)
    return maps.ravel()
