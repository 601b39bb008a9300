"""Flattening of feature maps for a dense layer."""

import equinox as eqx
from jaxtyping import Array, Float

from ..errors import InputError
from ..types import Image
from .cpu.barrier import keep_on_cpu

__all__ = ["flatten_for"]

#: Maps with at most this many channels are assumed to be the input image, which is cheap to recompute.
_MAX_IMAGE_CHANNELS = 4


def flatten_for(layer: eqx.nn.Linear, maps: Image) -> Float[Array, " n"]:
    """Flattens `maps` `[h w c]` into the input vector of `layer`.

    **Raises:** `InputError` if the number of values is not `layer.in_features`: the image does not have the size that
    the model was built for.
    """
    if maps.size != layer.in_features:
        raise InputError(
            f"`image` does not have the size that the model was built for: its feature maps of shape {maps.shape} have "
            f"{maps.size} values and the dense layer takes {layer.in_features}; resize the image, or build the model "
            "with its `image_size`"
        )
    if maps.shape[-1] > _MAX_IMAGE_CHANNELS:
        # Without the barrier, XLA computes the maps inside the flattening loop, with index arithmetic for each value.
        maps = keep_on_cpu(maps)
    return maps.ravel()
