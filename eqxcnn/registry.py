"""The families of `eqxcnn/models`, found by scanning it, and how one of their variants is built by name."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import equinox as eqx
from beartype.door import is_bearable

from . import models
from .errors import InputError, nearest
from .types import Classifier, Key, Variant

#: What all models are asked for in words of `create_model`'s own.
_ASKED_BY_NAME = ("num_classes", "in_channels", "image_size", "key")


@cache
def families() -> Mapping[str, tuple[str, Variant]]:
    """Every variant by name, with its family. Scanned once: a file added to `models/` needs no registration."""
    found: dict[str, tuple[str, Variant]] = {}
    for module in pkgutil.iter_modules(models.__path__):
        family = importlib.import_module(f"{models.__name__}.{module.name}")
        for name, row in family.variants.items():
            if name in found:
                raise RuntimeError(f"two architectures are named `{name}`: {found[name][0]} and {module.name}")
            found[name] = (module.name, row)
    return MappingProxyType(dict(sorted(found.items())))


def family(name: str) -> str:
    """The file of `eqxcnn/models` that holds a model.

    **Raises:** `InputError` with the nearest names when there is no such model.
    """
    if name not in families():
        raise InputError(f"there is no model named `{name}`; {nearest(name, families())}")
    return families()[name][0]


def variant(name: str) -> Variant:
    """The table row of a model.

    **Raises:** `InputError` with the nearest names when there is no such model.
    """
    family(name)
    return families()[name][1]


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    key: Key,
    **architecture: Any,
) -> tuple[Classifier, eqx.nn.State]:
    """A model with random weights and its state; arguments and errors are those of `zoo.create_model`."""
    row = variant(name)
    arguments = {
        "num_classes": row.num_classes if num_classes is None else num_classes,
        "in_channels": row.input[2] if in_channels is None else in_channels,
        "image_size": checked_size(name, image_size),
    }
    if arguments["num_classes"] < 0 or arguments["in_channels"] < 1:
        raise InputError(
            f"`num_classes` (={arguments['num_classes']}) must be 0 (features) or more and "
            f"`in_channels` (={arguments['in_channels']}) 1 or more"
        )
    check_keywords(name, architecture)
    return eqx.nn.make_with_state(row.make)(**arguments, **architecture, key=key)


def checked_size(name: str, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """`(height, width)` of a model asked for `image_size` (`None`: as published).

    **Raises:** `InputError` naming the smallest size when it is smaller than that.
    """
    row = variant(name)
    size = row.input[:2] if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < row.smallest:
        raise InputError(
            f"`image_size` (={height}x{width}) is too small for `{name}`: the smallest it takes is "
            f"{row.smallest}x{row.smallest}"
        )
    return height, width


def check_keywords(name: str, given: Mapping[str, Any]) -> None:
    """Refuses a keyword that an architecture's constructor does not have, or a value that is not of its type.

    **Raises:** `InputError` naming both; or as `variant`.
    """
    parameters = inspect.signature(variant(name).make).parameters
    known = [each for each in parameters if each not in _ASKED_BY_NAME]
    for keyword, value in given.items():
        if keyword not in known:
            raise InputError(f"`{keyword}` is no argument of `{name}`; {nearest(keyword, known)}")
        hint = parameters[keyword].annotation
        # A whole number is a fine float, which beartype does not think.
        if not is_bearable(value, hint) and not (type(value) is int and is_bearable(float(value), hint)):
            raise InputError(f"`{keyword}` (={value!r}) of `{name}` must be of type `{inspect.formatannotation(hint)}`")
