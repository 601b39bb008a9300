"""Looks up models by name, checks constructor arguments, and builds models."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin

import equinox as eqx
import jax
from beartype.door import is_bearable

from .catalog import families, find
from .cost import count_parameters
from .errors import InputError, nearest, show
from .types import Classifier, Key, Variant

__all__ = [
    "MAX_CHANNELS",
    "MAX_CLASSES",
    "MAX_PARAMETERS",
    "MAX_SIDE",
    "build",
    "check_keywords",
    "family",
    "has_type",
    "is_same_network",
    "resolve_image_size",
    "variant",
]

#: The constructor parameters that `create_model` has too.
_COMMON_PARAMETERS = ("num_classes", "in_channels", "image_size", "key")
#: The constructor parameters that count blocks or layers, in total or per stage.
_DEPTHS = ("depth", "depths", "layers")

#: Limits on the size of a model, far beyond every published network, so that a mistyped number cannot fill the memory.
MAX_PARAMETERS = 1_000_000_000
MAX_CLASSES = 1_000_000
MAX_CHANNELS = 4096
MAX_SIDE = 4096
#: The largest integer in an argument such as a width or a kernel size.
_MAX_SIZE = 65_536
#: The largest sum of a `_DEPTHS` argument, the largest number of stages, and the greatest length of other tuples.
_MAX_DEPTH, _MAX_STAGES, _MAX_LENGTH = 400, 8, 64


def family(name: str) -> str:
    """Returns the family of a model: the name of its file in `eqxcnn/models`.

    The family of a model from another package is `package/entry point`, and that of a registered model is
    `module/constructor`.

    **Raises:** `InputError` with the nearest names if there is no such model.
    """
    return find(name)[0]


def variant(name: str) -> Variant:
    """Returns the table row of a model.

    **Raises:** `InputError` with the nearest names if there is no such model.
    """
    return find(name)[1]


def is_same_network(name: str, other: str) -> bool:
    """Returns whether two names stand for the same network, possibly with another image size or number of classes.

    Each name may also be the name of a class that is not in the registry.
    """
    rows = families()
    return name == other or (name in rows and other in rows and rows[name][1].make is rows[other][1].make)


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    key: Key,
    **architecture: Any,
) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model with random weights, and its state; see `zoo.create_model` for arguments and errors."""
    row = variant(name)
    check_keywords(name, architecture, also_known=("num_classes", "in_channels", "image_size"))
    arguments = {
        "num_classes": row.num_classes if num_classes is None else num_classes,
        "in_channels": row.input[2] if in_channels is None else in_channels,
        "image_size": resolve_image_size(name, image_size),
    }
    for argument, least, most in (("num_classes", 0, MAX_CLASSES), ("in_channels", 1, MAX_CHANNELS)):
        if not least <= arguments[argument] <= most:
            words = f"{least} (features)" if least == 0 else f"{least}"
            raise InputError(f"`{argument}` (={show(arguments[argument])}) must be from {words} to {most}")
    make = partial(eqx.nn.make_with_state(row.make), **arguments, **architecture)
    # The first call computes only shapes, so that a model that is too large is refused before its memory is allocated.
    # With a traced key, `make` computes only shapes anyway.
    model = make(key=key) if _is_traced(key) else eqx.filter_eval_shape(make, key=key)
    if not isinstance(model[0], eqx.Module) or not isinstance(model[0], Classifier):
        raise InputError(
            f"the constructor of `{name}` must return an Equinox module with the methods `__call__` and `features` of "
            f"`eqxcnn.types.Classifier`, but it returns a `{type(model[0]).__qualname__}`"
        )
    count = count_parameters(model[0])
    if count > MAX_PARAMETERS:
        raise InputError(
            f"`{name}` with these settings has {count:,} parameters, more than the limit of {MAX_PARAMETERS:,}: give "
            "smaller settings"
        )
    return model if _is_traced(key) else make(key=key)


def _is_traced(key: Key) -> bool:
    try:
        return key.committed is None
    except (AttributeError, jax.errors.ConcretizationTypeError):  # a traced array has no device
        return True


def resolve_image_size(name: str, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Returns a model's `(height, width)` for the argument `image_size`; `None` means the published size.

    **Raises:** `InputError` if `image_size` is smaller than the smallest size of the model, or larger than `MAX_SIDE`.
    """
    row = variant(name)
    size = row.input[:2] if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < row.smallest:
        raise InputError(
            f"`image_size` (={show(height)}x{show(width)}) is too small for `{name}`: the smallest size is "
            f"{row.smallest}x{row.smallest}"
        )
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"`image_size` (={show(height)}x{show(width)}) is too large: the largest size is {MAX_SIDE}x{MAX_SIDE}"
        )
    return height, width


def check_keywords(name: str, given: Mapping[str, Any], *, also_known: Sequence[str] = ()) -> None:
    """Checks the names, types and values of keyword arguments for a model's constructor.

    Numbers must be finite and positive, or 0 if 0 is a default in some variant of the family. A `..._rate` must lie in
    [0, 1). If the defaults of two tuples have the same length, the given tuples must have the same length too. Nothing
    may exceed this module's limits. Each constructor checks any further rules of its own.

    **Arguments:**

    - `also_known`: names of other arguments of the caller; the error for an unknown name may suggest them too.

    **Raises:** `InputError` for an unknown model; for an invalid argument, an `InputError` that names the argument and
        the rule.
    """
    parameters = inspect.signature(variant(name).make).parameters
    known = [parameter for parameter in parameters if parameter not in _COMMON_PARAMETERS]
    for keyword, value in given.items():
        if keyword not in known:
            raise InputError(f"`{name}` has no argument `{keyword}`; {nearest(str(keyword), [*known, *also_known])}")
        hint = parameters[keyword].annotation
        if not has_type(value, hint):
            raise InputError(
                f"`{keyword}` (={show(value)}) of `{name}` must be of type `{inspect.formatannotation(hint)}`"
            )
        if problem := _find_problem(keyword, value, _defaults(family(name), keyword)):
            raise InputError(f"`{keyword}` (={show(value)}) of `{name}` must {problem}")
    _check_lengths(name, {keyword: parameters[keyword].default for keyword in known}, given)


def _defaults(family_name: str, keyword: str) -> list[Any]:
    """Returns the defaults of an argument in all variants of a family."""
    rows = [row for each, row in families().values() if each == family_name]
    signatures = [inspect.signature(row.make).parameters for row in rows]
    return [parameters[keyword].default for parameters in signatures if keyword in parameters]


def _find_problem(keyword: str, value: Any, defaults: list[Any]) -> str | None:
    """Returns the rule that a value of the right type breaks, as the end of a sentence with "must"."""
    numbers = list(_numbers(value))
    if keyword.endswith("_rate") and isinstance(value, float | int) and any(type(each) is float for each in defaults):
        return None if 0 <= value < 1 else "be at least 0 and below 1"
    if isinstance(value, tuple):
        if not value and () not in defaults:
            return "have at least one entry"
        longest = _MAX_STAGES if keyword in _DEPTHS else _MAX_LENGTH
        if len(value) > longest:
            return f"have at most {longest} entries"
    if not all(isinstance(number, int) or math.isfinite(number) for number in numbers):
        return "be finite"
    may_be_zero = any(number == 0 for default in defaults for number in _numbers(default))
    if any(number < 0 or (number == 0 and not may_be_zero) for number in numbers):
        return f"be {'at least' if may_be_zero else 'above'} 0"
    if any(number > _MAX_SIZE for number in numbers):
        return f"be at most {_MAX_SIZE}"
    if keyword in _DEPTHS and sum(numbers) > _MAX_DEPTH:
        return f"be at most {_MAX_DEPTH} in total"
    return None


def _numbers(value: Any) -> Iterator[int | float]:
    """Yields the numbers in a value, at any depth of its tuples."""
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _check_lengths(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Checks that tuples which are equally long by default, such as `widths` and `depths`, have the same length."""
    tuples = [keyword for keyword, default in defaults.items() if isinstance(default, tuple)]
    for one in tuples:
        for other in tuples:
            values = [given.get(keyword, defaults[keyword]) for keyword in (one, other)]
            if len(defaults[one]) == len(defaults[other]) and len(values[0]) != len(values[1]):
                raise InputError(
                    f"`{one}` (={values[0]}) and `{other}` (={values[1]}) of `{name}` must have the same length"
                )


def has_type(value: Any, hint: Any) -> bool:
    """Returns whether a value and all its elements have a type; `beartype` would check only one random element.

    A `bool` does not count as an `int`, and an `int` counts as a `float`.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(has_type(value, part) for part in parts)
    if origin in (list, tuple, dict) and not isinstance(value, origin):
        return False
    if origin is list:
        return all(has_type(item, parts[0]) for item in value)
    if origin is dict and isinstance(value, dict):
        return all(has_type(key, parts[0]) and has_type(item, parts[1]) for key, item in value.items())
    if origin is tuple:
        hints = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(hints) == len(value) and all(map(has_type, value, hints))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if hasattr(hint, "_fields"):  # a named tuple, which beartype does not look into
        return isinstance(value, hint) and all(map(has_type, value, hint.__annotations__.values()))
    return is_bearable(value, hint)
