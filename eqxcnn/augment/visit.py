"""Augmentations that depend on how often a run has seen an image before."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from ..types import Image, Key, Visit


@dataclass(frozen=True)
class VisitAugment:
    """An augmentation that is also told which of a run's looks at the image it is for.

    - `change`: a function of one image `[h w c]` in [0, 1], a key, and the visit, to an image of the same shape.
    """

    change: Callable[[Image, Key, Visit], Image]

    def __call__(self, image: Image, key: Key, visit: Visit | None = None) -> Image:
        """The changed image; without a visit it is a first look at an image that has `key` for its own."""
        return self.change(image, key, visit or Visit(key, jnp.zeros((), jnp.int32)))
