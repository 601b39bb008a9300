"""Builds one augmentation from the strings of a recipe."""

from collections.abc import Callable, Sequence

import jax
from beartype import beartype
from jaxtyping import jaxtyped

from ..errors import InputError
from ..named_calls import call_by_name
from ..types import Augment, AugmentContext, Image, Key
from . import auto, color, erase, geometry, rotation
from .context import ContextAugment

#: The names that a recipe can use. `flip_horizontal` and `flip_vertical` are short for the names with `random_`.
AUGMENTS: dict[str, Callable[..., Augment | ContextAugment]] = {
    "flip_horizontal": geometry.random_flip_horizontal,
    "flip_vertical": geometry.random_flip_vertical,
    "random_flip_horizontal": geometry.random_flip_horizontal,
    "random_flip_vertical": geometry.random_flip_vertical,
    "alternating_flip": geometry.alternating_flip,
    "random_rot90": geometry.random_rot90,
    "random_rotation": rotation.random_rotation,
    "random_crop": geometry.random_crop,
    "random_resized_crop": geometry.random_resized_crop,
    "cutout": erase.cutout,
    "random_erasing": erase.random_erasing,
    "brightness": color.brightness,
    "random_brightness": color.random_brightness,
    "random_contrast": color.random_contrast,
    "random_saturation": color.random_saturation,
    "random_hue": color.random_hue,
    "color_jitter": color.color_jitter,
    "auto_augment": auto.auto_augment,
    "rand_augment": auto.rand_augment,
    "trivial_augment": auto.trivial_augment,
}


def build(names: Sequence[str]) -> ContextAugment | None:
    """Builds the augmentation of a recipe's `augment` setting.

    **Arguments:**

    - `names`: names of `AUGMENTS` in order of application, alone or with arguments in Python's syntax:
      `["flip_horizontal", "random_crop(padding=2, mode='reflect')"]`. The arguments are literals, never evaluated.

    **Returns:** a function of one image, a key and optionally an `AugmentContext` (see `compose`); `None` for an empty
        list.

    **Raises:** `InputError` for an unknown name or unsuitable arguments.
    """
    if isinstance(names, str):
        raise InputError(f"`augment` (={names!r}) must be a list of strings: write [{names!r}].")
    return compose([call_by_name(entry, AUGMENTS, "augmentation") for entry in names]) if names else None


def compose(augments: Sequence[Augment | ContextAugment]) -> ContextAugment:
    """Composes augmentations, applied in order, each with a different key.

    The key is folded with the position, so that appending an augmentation does not change the draws of the others.
    Every `ContextAugment` also gets the context.
    """

    @jaxtyped(typechecker=beartype)
    def composed(image: Image, key: Key, context: AugmentContext) -> Image:
        for position, augment in enumerate(augments):
            stage_key = jax.random.fold_in(key, position)
            if isinstance(augment, ContextAugment):
                image = augment(image, stage_key, context)
            else:
                image = augment(image, stage_key)
        return image

    return ContextAugment(composed)
