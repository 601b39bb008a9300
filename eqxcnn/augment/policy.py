"""Builds one augmentation from the strings of a recipe."""

import ast
import warnings
from collections.abc import Callable, Sequence
from inspect import Signature, signature
from typing import Any

import jax
from beartype import beartype
from jaxtyping import jaxtyped

from ..errors import InputError, nearest
from ..parsing import parse_literal
from ..ranges import plain_type
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


#: The most characters of an entry.
_MAX_ENTRY = 500


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
    return compose([_make_augment(entry) for entry in names]) if names else None


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


def _make_augment(entry: str) -> Augment | ContextAugment:
    name, args, kwargs = _parse(entry)
    if name not in AUGMENTS:
        raise InputError(f"there is no augmentation `{name}`: {nearest(name, AUGMENTS)}")
    parameters = signature(AUGMENTS[name])
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError as problem:
        shown = [each.replace(annotation=plain_type(each.annotation)) for each in parameters.parameters.values()]
        usage = f"{name}{Signature(shown)}"
        raise InputError(f"augmentation `{entry}`: {problem}; write `{usage}`.") from None
    return AUGMENTS[name](*bound.args, **bound.kwargs)


def _parse(entry: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Parses `name` or `name(1, other=2)` into the name, positional and keyword arguments."""
    entry = entry.strip()
    if len(entry) > _MAX_ENTRY:
        raise InputError(f"augmentation `{entry}` has {len(entry)} characters: write at most {_MAX_ENTRY}")

    def parse(argument: ast.expr) -> Any:
        return parse_literal(ast.get_source_segment(entry, argument) or "", f"an argument of augmentation `{entry}`")

    match _parse_expression(entry):
        case ast.Name(id=name):
            return name, [], {}
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            # `**` has no name, and a dict would keep only the last of two arguments of the same name.
            named = {word.arg: parse(word.value) for word in keywords if word.arg}
            if len(named) == len(keywords):
                return name, [parse(arg) for arg in args], named
    raise InputError(f"augmentation `{entry}` cannot be read: write `name` or `name(argument=1, other='text')`.")


def _parse_expression(text: str) -> ast.expr | None:
    """Parses a Python expression; returns `None` for anything else."""
    try:
        with warnings.catch_warnings():
            # Python warns of `1is 1`, as `SyntaxWarning` or `DeprecationWarning`.
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
