"""Augmentations that depend on the epoch and on the image's identity."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..types import AugmentContext, Image, Key

__all__ = ["ContextAugment"]


@dataclass(frozen=True)
class ContextAugment:
    """An augmentation that also takes an `AugmentContext`: the epoch, and a key that identifies the image.

    - `change`: maps one image `[h w c]` in [0, 1], a key and the context to an image of the same shape.
    """

    change: Callable[[Image, Key, AugmentContext], Image]

    def __call__(self, image: Image, key: Key, context: AugmentContext | None = None) -> Float[Array, "_ _ c"]:
        """Returns the augmented image; without a context, the epoch is 0 and `key` identifies the image."""
        return self.change(image, key, context or AugmentContext(key, jnp.zeros((), jnp.int32)))
