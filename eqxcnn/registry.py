"""Finds the model families in `eqxcnn/models` and builds their variants by name."""

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

#: The constructor's parameters that `create_model` has itself.
_COMMON_PARAMETERS = ("num_classes", "in_channels", "image_size", "key")


@cache
def families() -> Mapping[str, tuple[str, Variant]]:
    """Returns the family and the table row of every variant by name, sorted.

    The folder is scanned once; a file added to `models/` needs no registration.
    """
    found: dict[str, tuple[str, Variant]] = {}
    for module in pkgutil.iter_modules(models.__path__):
        variants = importlib.import_module(f"{models.__name__}.{module.name}").variants
        for name, row in variants.items():
            if name in found:
                raise RuntimeError(f"two variants are named `{name}`: {found[name][0]} and {module.name}")
            found[name] = (module.name, row)
    return MappingProxyType(dict(sorted(found.items())))


def family(name: str) -> str:
    """Returns the family of a model, which is the name of its file in `eqxcnn/models`.

    **Raises:** `InputError` with the nearest names if there is no such model.
    """
    if name not in families():
        raise InputError(f"there is no model named `{name}`; {nearest(name, families())}")
    return families()[name][0]


def variant(name: str) -> Variant:
    """Returns the table row of a model.

    **Raises:** `InputError` with the nearest names if there is no such model.
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
    """Builds a model with random weights and its state; arguments and errors are those of `zoo.create_model`."""
    row = variant(name)
    arguments = {
        "num_classes": row.num_classes if num_classes is None else num_classes,
        "in_channels": row.input[2] if in_channels is None else in_channels,
        "image_size": resolve_image_size(name, image_size),
    }
    if arguments["num_classes"] < 0 or arguments["in_channels"] < 1:
        raise InputError(
            f"`num_classes` (={arguments['num_classes']}) must be 0 (features) or more and "
            f"`in_channels` (={arguments['in_channels']}) 1 or more"
        )
    check_keywords(name, architecture)
    return eqx.nn.make_with_state(row.make)(**arguments, **architecture, key=key)


def resolve_image_size(name: str, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Returns a model's `(height, width)` for the argument `image_size`; `None` means the published size.

    **Raises:** `InputError` that names the smallest size, if `image_size` is smaller.
    """
    row = variant(name)
    size = row.input[:2] if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < row.smallest:
        raise InputError(
            f"`image_size` (={height}x{width}) is too small for `{name}`: the smallest size is "
            f"{row.smallest}x{row.smallest}"
        )
    return height, width


def check_keywords(name: str, given: Mapping[str, Any]) -> None:
    """Checks the names and types of keyword arguments for a model's constructor.

    **Raises:** `InputError` that names the argument, and the expected type if the type is wrong; or as `variant`.
    """
    parameters = inspect.signature(variant(name).make).parameters
    known = [parameter for parameter in parameters if parameter not in _COMMON_PARAMETERS]
    for keyword, value in given.items():
        if keyword not in known:
            raise InputError(f"`{name}` has no argument `{keyword}`; {nearest(keyword, known)}")
        hint = parameters[keyword].annotation
        # An int is accepted where a float is expected, unlike in beartype.
        if not is_bearable(value, hint) and not (type(value) is int and is_bearable(float(value), hint)):
            raise InputError(f"`{keyword}` (={value!r}) of `{name}` must be of type `{inspect.formatannotation(hint)}`")
