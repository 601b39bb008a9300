"""Strings in a recipe that call a function by name: `random_crop(padding=2)`, `top_k(5)`."""

import ast
import warnings
from collections.abc import Callable, Mapping
from inspect import Signature, signature
from typing import Any, TypeVar

from .errors import InputError, nearest
from .parsing import parse_literal
from .ranges import plain_type

__all__ = ["call_by_name"]

_T = TypeVar("_T")

_MAX_ENTRY = 500


def call_by_name(entry: str, functions: Mapping[str, Callable[..., _T]], kind: str, *, hint: str = "") -> _T:
    """Calls the function named by `name` or `name(1, other=2)`; the arguments are literals, and nothing is evaluated.

    **Arguments:**

    - `functions`: the known functions by name.
    - `kind`: the kind of object that the functions return, such as `metric`, for error messages.
    - `hint`: a sentence that is appended to the error for an unknown name.

    **Raises:** `InputError` for an unknown name, an entry that cannot be parsed, or arguments that do not fit.
    """
    name, args, kwargs = _parse(entry, kind)
    if name not in functions:
        raise InputError(f"there is no {kind} `{name}`: {nearest(name, functions)}{hint and f' {hint}'}")
    parameters = signature(functions[name])
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError as problem:
        shown = [each.replace(annotation=plain_type(each.annotation)) for each in parameters.parameters.values()]
        raise InputError(f"{kind} `{entry}`: {problem}; write `{name}{Signature(shown)}`.") from None
    return functions[name](*bound.args, **bound.kwargs)


def _parse(entry: str, kind: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Parses `name` or `name(1, other=2)` into the name, the positional arguments and the keyword arguments."""
    entry = entry.strip()
    if len(entry) > _MAX_ENTRY:
        raise InputError(f"{kind} `{entry}` has {len(entry)} characters: write at most {_MAX_ENTRY}")

    def parse(argument: ast.expr) -> Any:
        return parse_literal(ast.get_source_segment(entry, argument) or "", f"an argument of {kind} `{entry}`")

    match _parse_expression(entry):
        case ast.Name(id=name):
            return name, [], {}
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            # The lengths differ if an argument is `**kwargs`, which has no name, or if two arguments share a name.
            named = {word.arg: parse(word.value) for word in keywords if word.arg}
            if len(named) == len(keywords):
                return name, [parse(arg) for arg in args], named
    raise InputError(f"{kind} `{entry}` cannot be read: write `name` or `name(argument=1, other='text')`.")


def _parse_expression(text: str) -> ast.expr | None:
    """Parses a Python expression; returns `None` for anything else."""
    try:
        with warnings.catch_warnings():
            # Python warns about text such as `1is 1`; the type of the warning depends on the version.
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
