"""Settings of a recipe one by one: of their type and within their range, or refused in words that a user says."""

import ast
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from beartype.door import is_bearable

from ..errors import InputError


def coerce(name: str, value: Any, hint: Any) -> Any:
    """The value if it is of its setting's type; a whole number is a fine float, which beartype does not think.

    **Raises:** `InputError` naming setting, value and type.
    """
    options = get_args(hint) or (hint,)
    if float in options and int not in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not is_bearable(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"`{name}` (={value!r}) must be {describe_type(hint)}")
    return value


def check_range(settings: Any, names: tuple[str, ...], words: str, holds: Callable[[Any], bool]) -> None:
    """Refuses numbers among these settings that are not finite or for which `holds` is false; `words` is the range.

    **Raises:** `InputError` naming setting, value and range.
    """
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, int | float) and not (math.isfinite(value) and holds(value)):
            raise InputError(f"`{name}` (={value}) must be {words}")


def parse_arguments(name: str, entries: Sequence[str]) -> dict[str, Any]:
    """The arguments that `entries` write as Python does, `["rate=0.1"]`; their values are literals: nothing is run.

    **Raises:** `InputError` for an entry that is none, and for a name that is there twice.
    """
    found: dict[str, Any] = {}
    for entry in entries:
        argument, sign, value = (part.strip() for part in entry.partition("="))
        try:
            if not sign or not argument.isidentifier() or argument in found:
                raise ValueError
            found[argument] = ast.literal_eval(value)
        except (SyntaxError, ValueError, TypeError):
            message = f"`{name}` (={entry!r}) cannot be read: write `argument=value`, each argument once"
            raise InputError(message) from None
    return found


def describe_type(hint: Any) -> str:
    """A type as a user says it: `one of 'adam', 'sgd'`, `a whole number or nothing`."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        bool: "true or false",
        type(None): "nothing",
    }
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple:
        inner, *rest = get_args(hint)
        many = "a list" if Ellipsis in rest else f"a list of {len(rest) + 1}"
        return f"{many}, each {describe_type(inner)}"
    # A whole number is a number.
    options = [each for each in get_args(hint) if each is not int or float not in get_args(hint)]
    return " or ".join(map(describe_type, options))
