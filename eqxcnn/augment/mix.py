"""Images of a batch mixed with one another, each in a share of its own: mixup and cutmix."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Image, Images, Key
from .erase import inside_box


@dataclass(frozen=True)
class Mix:
    """Mixes every image of a batch with the one before it, the first with the last.

    `mixup` adds the two in shares drawn from Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412, eq. 1); `cutmix`
    puts a box of the other image, of that area and around any pixel, over the image (Yun et al. 2019,
    arXiv:1905.04899, section 3.1 and algorithm 1). As batches are in a random order, so are the pairs.

    - `mixup`, `cutmix`: each one's alpha; 0 is never.
    - `probability`: how likely an image is mixed at all.
    - `switch`: how likely a mixed image is cut and not added, where both are on.

    **Raises:** `InputError` for numbers out of range.
    """

    mixup: float | int = 0.0
    cutmix: float | int = 0.0
    probability: float | int = 1.0
    switch: float | int = 0.5

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not (self.mixup or self.cutmix):
            raise InputError(
                f"`mixup` (={self.mixup}) and `cutmix` (={self.cutmix}) must be 0 or more, and one of them above 0"
            )
        for name in ("probability", "switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"`{name}` (={getattr(self, name)}) is a probability: choose it from 0 to 1")

    @jaxtyped(typechecker=beartype)
    def __call__(self, images: Images, key: Key) -> tuple[Images, Float[Array, " b"]]:
        """The mixed images `[b h w c]`, and the share of each that is its own; the rest is its partner's."""
        return jax.vmap(self._mixed)(images, partners(images), jax.random.split(key, len(images)))

    def _mixed(self, image: Image, other: Image, key: Key) -> tuple[Image, Float[Array, ""]]:
        is_mixed_key, is_cut_key, add_key, cut_key, box_key = jax.random.split(key, 5)
        added, own = image, jnp.ones(())
        if self.mixup:
            own = jax.random.beta(add_key, self.mixup, self.mixup)
            added = own * image + (1 - own) * other
        if self.cutmix:
            height, width, _ = image.shape
            covered = _box(box_key, (height, width), jax.random.beta(cut_key, self.cutmix, self.cutmix))
            is_cut = jax.random.bernoulli(is_cut_key, self.switch) if self.mixup else jnp.bool_(True)
            added = jnp.where(is_cut, jnp.where(covered[:, :, None], other, image), added)
            own = jnp.where(is_cut, 1 - covered.mean(), own)
        is_mixed = jax.random.bernoulli(is_mixed_key, self.probability)
        return jnp.where(is_mixed, added, image), jnp.where(is_mixed, own, 1.0)


def partners(batch: Array) -> Array:
    """What each example of a batch `[b ...]` is mixed with: the one before it."""
    return jnp.roll(batch, 1, axis=0)


def _box(key: Key, size: tuple[int, int], own: Float[Array, ""]) -> Array:
    """Where a box `[h w]` of area `1 - own` lies around a random pixel, cut off at the border."""
    center = jax.random.randint(key, (2,), 0, jnp.array(size))
    half = (jnp.sqrt(1 - own) * jnp.array(size, own.dtype)).astype(int) // 2
    return inside_box(*size, center - half, 2 * half)
