"""Makes the model's input from a batch: keys, augmentation, mixing, normalization."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from ..augment import partners
from ..forward_pass import normalize
from ..optim.losses import MixedLabels, Targets
from ..types import AugmentContext, Image, Images, Key, Labels, Pixels
from .setup import Setup

__all__ = ["Batch", "StepKeys", "make_input", "step_keys"]

#: The row numbers of images on the device; or the images, labels and row numbers of a streamed batch.
Batch: TypeAlias = Int[Array, "*k b"] | tuple[Num[Array, "*k b h w c"], Int[Array, "*k b"], Int[Array, "*k b"]]

#: Never a step number, so the keys of rows cannot collide with the keys of steps.
_ROWS = 2**32 - 1


class StepKeys(NamedTuple):
    """The keys of a step, one per purpose.

    - `augment`: split into one key per image.
    - `model`: for dropout and similar layers.
    - `mix`: for mixup and CutMix.
    """

    augment: Key
    model: Key
    mix: Key


def step_keys(key: Key, step: Int[Array, ""]) -> StepKeys:
    """Derives the keys of a step from `Setup.key`; this is the only place where step keys are derived."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key, step), 3))


def make_input(setup: Setup, batch: Batch, step: Int[Array, ""], keys: StepKeys) -> tuple[Images, Targets]:
    """Returns the augmented, mixed and normalized images `[b h w c]` of a batch, and the labels of the batch."""
    pixels, labels, rows = batch if isinstance(batch, tuple) else _gather(setup.data, batch)
    images = _augment(setup, pixels, rows, step, keys.augment)
    if setup.mix is None:
        return normalize(images, setup.mean, setup.std), labels
    mixed, share = setup.mix(_to_unit_range(images), keys.mix)
    return normalize(mixed, setup.mean, setup.std), MixedLabels(labels, partners(labels), share)


def _gather(
    data: tuple[Num[Array, "n h w c"], Int[Array, " n"]] | None, rows: Int[Array, " b"]
) -> tuple[Pixels | Images, Labels, Int[Array, " b"]]:
    """Returns the images and labels at `rows`, and `rows` itself; every row must exist."""
    assert data is not None, "a batch of rows needs a setup that holds the data"
    images, labels = data
    return images.at[rows].get(mode="promise_in_bounds"), labels.at[rows].get(mode="promise_in_bounds"), rows


def _to_unit_range(images: Pixels | Images) -> Images:
    """Returns images in [0, 1] as float32."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def _augment(
    setup: Setup, pixels: Pixels | Images, rows: Int[Array, " b"], step: Int[Array, ""], key: Key
) -> Num[Array, "b _ _ c"]:
    """Augments each image with its own PRNG key; the context's `image_key` stays the same in every epoch."""
    augment = setup.augment
    if augment is None:
        return pixels
    row_key, epoch = jax.random.fold_in(setup.key, jnp.uint32(_ROWS)), step // setup.steps_per_epoch

    # The result can have a different height and width than `image`, because cached images are cropped.
    def augment_image(image: Image, key: Key, row: Int[Array, ""]) -> Float[Array, "_ _ c"]:
        return augment(image, key, AugmentContext(jax.random.fold_in(row_key, row), epoch))

    keys = jax.random.split(key, pixels.shape[0])
    return jax.vmap(augment_image)(_to_unit_range(pixels), keys, rows)
