"""Builds one augmentation from the strings of a recipe."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import jax
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..named_calls import call_by_name
from ..plugins import entry_points, load, package
from ..types import Augment, AugmentContext, Image, Key
from . import auto, color, erase, geometry, rotation
from .context import ContextAugment

__all__ = ["AUGMENTS", "GROUP", "Stage", "build", "build_stages", "compose", "register"]

#: One augmentation of a recipe.
Stage: TypeAlias = Augment | ContextAugment

#: Entry points of this group add augmentations: each maps a name to a function like those in `AUGMENTS`.
GROUP = "eqxcnn.augments"
#: The names that a recipe can use, in addition to the names in entry points. `flip_horizontal` and `flip_vertical` are
#: short for `random_flip_horizontal` and `random_flip_vertical`.
AUGMENTS: dict[str, Callable[..., Stage]] = {
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


class _Factories(Mapping[str, Callable[..., Stage]]):
    """The functions in `AUGMENTS` and in other packages' entry points; an entry point is imported when it is used."""

    def __getitem__(self, name: str) -> Callable[..., Stage]:
        if name in AUGMENTS:
            return AUGMENTS[name]
        function: Callable[..., Stage] = load(entry_points(GROUP)[name])
        if not callable(function):
            raise InputError(f"`{name}` in `{GROUP}` must name a function that returns an augmentation")
        return function

    def __iter__(self) -> Iterator[str]:
        return iter({**AUGMENTS, **entry_points(GROUP)})

    def __len__(self) -> int:
        return len({**AUGMENTS, **entry_points(GROUP)})


def register(name: str, function: Callable[..., Stage]) -> None:
    """Adds an augmentation, whose name then works in recipes, commands and `build`.

    A program must register the augmentation before it builds a recipe with this name; on the command line, `--import`
    imports the module that registers it. An installed package can add its augmentations with entry points of the group
    `eqxcnn.augments` instead.

    **Arguments:**

    - `name`: a Python identifier. A name that exists already is refused.
    - `function`: returns the augmentation, like the functions in `AUGMENTS`; it is called with the arguments in the
      recipe, for example `name(1, other=2)`.

    **Raises:** `InputError` for a name that exists or is not an identifier, or for a `function` that cannot be called.
    """
    if not name.isidentifier():
        raise InputError(f"the augmentation name {name!r} must be a Python identifier")
    if AUGMENTS.get(name, function) is not function or name in entry_points(GROUP):
        raise InputError(f"the augmentation `{name}` exists already: choose another name")
    if not callable(function):
        raise InputError(f"`function` (={function!r}) must be a function that returns an augmentation")
    AUGMENTS[name] = function


def build(names: Sequence[str]) -> ContextAugment | None:
    """Builds the augmentation of a recipe's `augment` setting.

    **Arguments:**

    - `names`: names in `AUGMENTS`, or names of augmentations from other packages, in order of application. A name can
      have arguments in Python's syntax: `["flip_horizontal", "random_crop(padding=2, mode='reflect')"]`. The arguments
      are read as literals and never evaluated.

    **Returns:** a function of one image, a key and optionally an `AugmentContext` (see `compose`); `None` for an empty
        list.

    **Raises:** `InputError` for an unknown name or unsuitable arguments, or for a package that cannot be imported.
    """
    stages = build_stages(names)
    return compose(stages) if stages else None


def build_stages(names: Sequence[str]) -> list[Stage]:
    """Builds the augmentations of a recipe's `augment` setting, without composing them; see `build`."""
    if isinstance(names, str):
        raise InputError(f"`augment` (={names!r}) must be a list of strings: write [{names!r}].")
    if not names:
        return []
    for name in AUGMENTS.keys() & entry_points(GROUP).keys():
        where = package(entry_points(GROUP)[name])
        warnings.warn(f"`{name}` of the package `{where}` is ignored: the name exists already", stacklevel=2)
    return [_build_one(entry) for entry in names]


def _build_one(entry: str) -> Stage:
    hint = "If another package defines it, install or `--import` that package."
    augment: Stage = call_by_name(entry, _Factories(), "augmentation", hint=hint)
    if not callable(augment):
        raise InputError(
            f"augmentation `{entry}` is a `{type(augment).__name__}`, but must be a function of an image and a key: "
            "correct the function that returns it"
        )
    return augment


def compose(augments: Sequence[Stage]) -> ContextAugment:
    """Composes augmentations into one augmentation, which applies them in order, each with a different key.

    The image's key is folded with each augmentation's position, so appending an augmentation does not change the draws
    of the others. Every `ContextAugment` also receives the context.
    """

    @jaxtyped(typechecker=beartype)
    def composed(image: Image, key: Key, context: AugmentContext) -> Float[Array, "_ _ c"]:
        for position, augment in enumerate(augments):
            stage_key = jax.random.fold_in(key, position)
            if isinstance(augment, ContextAugment):
                image = augment(image, stage_key, context)
            else:
                image = augment(image, stage_key)
        return image

    return ContextAugment(composed)
