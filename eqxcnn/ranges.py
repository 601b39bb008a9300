"""The values that a setting or an argument may have: type and range, declared in its annotation and checked here."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from .errors import InputError, show

__all__ = [
    "Items",
    "Range",
    "check_arguments",
    "check_settings",
    "coerce",
    "declared_bounds",
    "describe_type",
    "plain_type",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: The longest path that Linux opens; no string in a recipe may be longer.
_MAX_TEXT = 4096
#: A number close to the largest float; no range contains this number.
_HUGE = 10**300


@dataclass(frozen=True)
class Range:
    """The values that a number may have, declared as `Annotated[float, Range(0, 1)]`.

    - `low`, `high`: the smallest and the largest value.
    - `excludes_low`, `excludes_high`: whether the bound itself is excluded.
    """

    low: float | int
    high: float | int
    excludes_low: bool = False
    excludes_high: bool = False

    def __contains__(self, value: float | int) -> bool:
        is_above = value > self.low if self.excludes_low else value >= self.low
        is_below = value < self.high if self.excludes_high else value <= self.high
        return is_above and is_below

    def __str__(self) -> str:
        if self.excludes_low or self.excludes_high:
            low = f"above {self.low}" if self.excludes_low else f"{self.low} or more"
            return f"{low} and {'below' if self.excludes_high else 'at most'} {self.high}"
        return f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class Items:
    """The largest number of items in a list, declared as `Annotated[tuple[str, ...], Items(100)]`."""

    most: int

    def __str__(self) -> str:
        return f"at most {self.most} items"


def check_settings(settings: Any) -> None:
    """Checks each field of a dataclass against its annotation and replaces it by the value that `coerce` returns.

    Fields that are dataclasses themselves are not checked.

    **Raises:** `InputError` naming the setting, its value, and what was expected.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        if not hasattr(hint, "__dataclass_fields__"):
            object.__setattr__(settings, name, coerce(name, getattr(settings, name), hint))


def check_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorates a function so that it checks its arguments against their annotations, as `check_settings` does."""
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = coerce(name, value, hints[name], f" of `{function.__name__}`")
        return function(*bound.args, **bound.kwargs)

    return checked


def coerce(name: str, value: Any, hint: Any, owner: str = "") -> Any:
    """Converts `value` to the type `hint`, such as an integer to a float or a list to a tuple, and checks its range.

    **Arguments:**

    - `name`: name of the setting or argument, for error messages.
    - `owner`: appended to the name and value in error messages, such as `" of `top_k`"`.

    **Raises:** `InputError` naming the setting, its value, and what was expected.
    """
    try:
        return _convert(value, hint)
    except TypeError:
        expected = describe_type(hint)
    except ValueError as error:
        expected = str(error)
    raise InputError(f"`{name}` (={show(value)}){owner} must be {expected}")


def describe_type(hint: Any) -> str:
    """Describes a type in words: `one of 'adam', 'sgd'`, `a whole number or nothing`."""
    hint = plain_type(hint)
    words = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        Path: "a path",
        bool: "true or false",
        type(None): "nothing",
    }
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple:
        item, *rest = get_args(hint)
        length = "a list" if Ellipsis in rest else f"a list of {len(rest) + 1}"
        return f"{length}, each {describe_type(item)}"
    # "a number" includes whole numbers.
    options = [option for option in get_args(hint) if option is not int or float not in get_args(hint)]
    return " or ".join(map(describe_type, options))


def plain_type(hint: Any) -> Any:
    """Removes `Annotated` from a type and from the types inside it."""
    if get_origin(hint) is Annotated:
        return plain_type(get_args(hint)[0])
    if get_origin(hint) in (None, Literal):
        return hint
    if get_origin(hint) is tuple:
        return tuple[tuple(item if item is Ellipsis else plain_type(item) for item in get_args(hint))]  # type: ignore
    options = [plain_type(option) for option in get_args(hint)]
    union = options[0]
    for option in options[1:]:
        union = union | option
    return union


def declared_bounds(hint: Any) -> Iterator[Range | Items]:
    """Yields the bounds declared in a type and in the types inside it."""
    if get_origin(hint) is Annotated:
        yield from (each for each in get_args(hint)[1:] if isinstance(each, Range | Items))
    if get_origin(hint) not in (None, Literal):
        for member in dict.fromkeys(get_args(hint)):
            yield from declared_bounds(member)


def _convert(value: Any, hint: Any) -> Any:
    """Converts `value` to the type `hint`.

    **Raises:** `TypeError` for a value of a different type; `ValueError`, whose message states the allowed values, for
        a value out of bounds.
    """
    if hint is Any:
        return value
    if get_origin(hint) is Annotated:
        hint, *bounds = get_args(hint)
        value = _convert(value, hint)
        for bound in bounds:
            _check_bound(value, bound)
        return value
    if get_origin(hint) is tuple:
        return _convert_items(value, get_args(hint))
    if get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise TypeError
        return value
    if get_origin(hint) is not None:
        return _convert_to_member(value, get_args(hint))
    if hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError
        return float(max(min(value, _HUGE), -_HUGE)) if isinstance(value, int) else float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise TypeError
    if isinstance(value, str | Path):
        _check_text(str(value), is_path=isinstance(value, Path))
    return value


def _convert_to_member(value: Any, options: tuple[Any, ...]) -> Any:
    """Converts `value` to the first member of a union that accepts it; the value's own type is tried before others."""
    for option in sorted(options, key=lambda option: plain_type(option) is not type(value)):
        try:
            return _convert(value, option)
        except TypeError:
            pass
    raise TypeError


def _convert_items(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or (Ellipsis not in hints and len(value) != len(hints)):
        raise TypeError
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_convert(item, hints[0] if Ellipsis in hints else hints[index]))
        except ValueError as error:
            raise ValueError(f"{error} in every item (item {index + 1} is {show(item)})") from error
    return tuple(items)


def _check_bound(value: Any, bound: Any) -> None:
    if isinstance(bound, Items) and isinstance(value, tuple) and len(value) > bound.most:
        raise ValueError(f"a list of {bound} (it has {len(value)})")
    # NaN is in no range.
    if isinstance(bound, Range) and isinstance(value, int | float) and value not in bound:
        raise ValueError(str(bound))


def _check_text(text: str, *, is_path: bool) -> None:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a string of at most {_MAX_TEXT} characters (it has {len(text)})")
    if "\0" in text:
        raise ValueError("a string without NUL characters")
    # Paths may contain bytes that are not UTF-8; other strings must not, since recipes are saved as UTF-8.
    if not is_path and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("valid UTF-8 text")
