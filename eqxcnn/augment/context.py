"""Augmentations that depend on how often a run has seen an image before."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from ..types import AugmentContext, Image, Key


@dataclass(frozen=True)
class ContextAugment:
    """An augmentation that is also told which of a run's looks at the image it is for.

    - `change`: a function of one image `[h w c]` in [0, 1], a key, and the context, to an image of the same shape.
    """

    change: Callable[[Image, Key, AugmentContext], Image]

    def __call__(self, image: Image, key: Key, context: AugmentContext | None = None) -> Image:
        """The changed image; without a context it is a first look at an image that has `key` for its own."""
        return self.change(image, key, context or AugmentContext(key, jnp.zeros((), jnp.int32)))
