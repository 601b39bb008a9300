"""From the strings of a recipe to one augmentation."""

import ast
from collections.abc import Callable, Sequence
from inspect import Signature, formatannotation, signature
from typing import Any

import jax
from beartype import beartype
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from ..errors import InputError, nearest
from ..types import Augment, AugmentContext, Image, Key
from . import auto, erase, geometry, rotation
from . import color as color
from .context import ContextAugment

#: What a recipe may name. `flip_horizontal` and `flip_vertical` are short for the same with `random_`.
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
    """The augmentation that a recipe's `augment` describes.

    **Arguments:**

    - `names`: names of `AUGMENTS` in the order they apply, each alone or with arguments written as in Python:
      `["flip_horizontal", "random_crop(padding=2, mode='reflect')"]`. The arguments are literals: nothing is run.

    **Returns:** a function of one image, a key and optionally an `AugmentContext` (see `compose`); `None` for an empty
        list.

    **Raises:** `InputError` for an unknown name, and for arguments the factory does not take.
    """
    if isinstance(names, str):
        raise InputError(f"`augment` (={names!r}) must be a list of strings: write [{names!r}].")
    return compose([_make(entry) for entry in names]) if names else None


def compose(augments: Sequence[Augment | ContextAugment]) -> ContextAugment:
    """One augmentation that applies several in order; each draws from a key of its own.

    The keys are folded in by position, so that one more at the end does not change what those before it draw. Those
    that are a `ContextAugment` are told the context too.
    """

    @jaxtyped(typechecker=beartype)
    def composed(image: Image, key: Key, context: AugmentContext) -> Image:
        for position, augment in enumerate(augments):
            own = jax.random.fold_in(key, position)
            image = augment(image, own, context) if isinstance(augment, ContextAugment) else augment(image, own)
        return image

    return ContextAugment(composed)


def _make(entry: str) -> Augment | ContextAugment:
    name, args, kwargs = _parse(entry)
    if name not in AUGMENTS:
        raise InputError(f"among the augmentations there is no `{name}`: {nearest(name, AUGMENTS)}")
    takes = signature(AUGMENTS[name])
    try:
        bound = takes.bind(*args, **kwargs)
    except TypeError as problem:
        usage = f"{name}{takes.replace(return_annotation=Signature.empty)}"
        raise InputError(f"augmentation `{entry}`: {problem}; write `{usage}`.") from None
    for argument, value in bound.arguments.items():
        hint = takes.parameters[argument].annotation
        if not is_bearable(value, hint):
            raise InputError(f"`{argument}` (={value!r}) of `{name}` must be of type `{formatannotation(hint)}`.")
    return AUGMENTS[name](*bound.args, **bound.kwargs)


def _parse(entry: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, positional and named arguments of `name` or `name(1, other=2)`."""
    try:
        node = ast.parse(entry.strip(), mode="eval").body
        match node:
            case ast.Name(id=name):
                return name, [], {}
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                # `**` has no name, and a dict would keep only the last of two arguments with one name.
                named = {word.arg: ast.literal_eval(word.value) for word in keywords if word.arg}
                if len(named) == len(keywords):
                    return name, [ast.literal_eval(each) for each in args], named
    except (SyntaxError, ValueError, TypeError):
        pass
    raise InputError(f"augmentation `{entry}` cannot be read: write `name` or `name(argument=1, other='text')`.")
