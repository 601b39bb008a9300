"""Mixup and CutMix: every image of a batch is mixed with another image."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..ranges import Range, check_settings
from ..types import Image, Images, Key
from .erase import box_mask

__all__ = ["Mix", "partners"]

#: Below this value, draws from the Beta distribution are not finite in float32.
_MIN_ALPHA = 1e-6


@dataclass(frozen=True)
class Mix:
    """Mixes every image of a batch with the image before it, and the first with the last.

    Mixup averages the two with a weight from Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412, eq. 1). CutMix
    pastes a box of the other image around a random pixel; the area of the box is drawn from the same distribution (Yun
    et al. 2019, arXiv:1905.04899, section 3.1 and algorithm 1). Pairs are random because batches are shuffled.

    - `mixup`, `cutmix`: the alpha of Mixup and of CutMix; 0 turns the method off.
    - `probability`: the probability that an image is mixed.
    - `switch_probability`: the probability of CutMix for a mixed image, if both are on.

    **Raises:** `InputError` if a value is out of range.
    """

    mixup: Annotated[float, Range(0, 1000)] = 0.0
    cutmix: Annotated[float, Range(0, 1000)] = 0.0
    probability: Annotated[float, Range(0, 1)] = 1.0
    switch_probability: Annotated[float, Range(0, 1)] = 0.5

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("mixup", "cutmix"):
            if 0 < getattr(self, name) < _MIN_ALPHA:
                raise InputError(f"`{name}` (={getattr(self, name)}) must be 0 or at least {_MIN_ALPHA}")
        if not (self.mixup or self.cutmix):
            raise InputError("`mixup` and `cutmix` must not both be 0")

    @jaxtyped(typechecker=beartype)
    def __call__(self, images: Images, key: Key) -> tuple[Images, Float[Array, " b"]]:
        """Returns the mixed images `[b h w c]`, and each image's weight `w`; its partner has the weight `1 - w`."""
        return jax.vmap(self._mix_pair)(images, partners(images), jax.random.split(key, len(images)))

    def _mix_pair(self, image: Image, other: Image, key: Key) -> tuple[Image, Float[Array, ""]]:
        is_mixed_key, is_cut_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
        mixed, weight = image, jnp.ones(())
        if self.mixup:
            weight = jax.random.beta(mixup_key, self.mixup, self.mixup)
            mixed = weight * image + (1 - weight) * other
        if self.cutmix:
            height, width, _ = image.shape
            is_pasted = _draw_box(box_key, (height, width), jax.random.beta(cutmix_key, self.cutmix, self.cutmix))
            is_cut = jax.random.bernoulli(is_cut_key, self.switch_probability) if self.mixup else jnp.bool_(True)
            mixed = jnp.where(is_cut, jnp.where(is_pasted[:, :, None], other, image), mixed)
            weight = jnp.where(is_cut, 1 - is_pasted.mean(), weight)
        is_mixed = jax.random.bernoulli(is_mixed_key, self.probability)
        return jnp.where(is_mixed, mixed, image), jnp.where(is_mixed, weight, 1.0)


def partners(batch: Array) -> Array:
    """Returns the mixing partner of each example in a batch `[b ...]`, which is the previous example."""
    return jnp.roll(batch, 1, axis=0)


def _draw_box(key: Key, size: tuple[int, int], weight: Float[Array, ""]) -> Array:
    """Returns the mask `[h w]` of a box of area `1 - weight` around a random pixel, clipped at the border."""
    center = jax.random.randint(key, (2,), 0, jnp.array(size))
    half = (jnp.sqrt(1 - weight) * jnp.array(size, weight.dtype)).astype(int) // 2
    return box_mask(*size, center - half, 2 * half)
