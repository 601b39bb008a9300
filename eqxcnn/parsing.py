"""Strict parsers for untrusted JSON, YAML and Python literals, with limits on size, depth and numbers."""

import ast
import json
import math
import re
import stat
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

__all__ = ["parse_json", "parse_literal", "parse_yaml", "read_text"]

#: Limits far above any file that eqxcnn writes. A file within the limits is read in milliseconds.
_MAX_BYTES = 16 << 20
_MAX_DEPTH = 50
_MAX_LITERAL = 1_000
_MAX_LITERAL_DEPTH = 10
_MAX_DIGITS = 30
# The closing quote is optional, so that an unterminated string is scanned only once. The quantifiers are possessive,
# because then a long string, such as an image in base64, takes a tenth of the time.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def read_text(path: Path, *, limit: int = _MAX_BYTES) -> str:
    """Returns the content of a regular UTF-8 file of at most `limit` bytes, without a byte order mark.

    **Raises:** `InputError` for a file that is missing, unreadable, too large, a pipe or a device, or not UTF-8.
    """
    try:
        # Reading a pipe would block, and a device may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"`{path}` is not a regular file: give a text file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL character in the path
        if isinstance(error, InputError):
            raise
        raise InputError(f"`{path}` cannot be read: {error}") from error
    if len(content) > limit:
        raise InputError(f"`{path}` has more than {limit} bytes: give a smaller file")
    try:
        return content.decode("utf-8-sig")  # without a byte order mark, which some editors write
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def parse_json(text: str | bytes, what: str, *, allow_nan: bool = False) -> Any:
    """Parses JSON and refuses duplicate keys, more than 50 levels, and numbers that are too long or not finite.

    **Arguments:**

    - `what`: the subject of error messages, such as the file's path in backticks.
    - `allow_nan`: whether to accept `NaN`, `Infinity` and `-Infinity`, the numbers that Python writes but JSON forbids.

    **Raises:** `InputError`.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        _check_json_depth(text)
        return json.loads(
            text,
            object_pairs_hook=_make_dict,
            parse_int=lambda digits: int(_check_digits(digits)),
            parse_float=lambda digits: _check_finite(float(digits)),
            parse_constant=lambda name: float(name) if allow_nan else _check_finite(float(name)),
        )
    except ValueError as error:
        raise InputError(f"{what} cannot be read as JSON: {error}") from error


def parse_yaml(text: str, what: str) -> Any:
    """Parses YAML with plain values only; dates are returned as strings.

    The parser refuses YAML features that settings do not need and that can hide a mistake or exhaust the memory:
    duplicate keys, aliases, tags, several documents, more than 50 levels, and numbers that are too long or not finite.

    **Arguments:**

    - `what`: the subject of error messages, such as the file's path in backticks.

    **Raises:** `InputError`.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_literal(text: str, what: str) -> Any:
    """Parses a Python literal, such as `(1, 2.5)` or `"text"`; nothing is evaluated.

    **Arguments:**

    - `what`: the subject of error messages.

    **Raises:** `InputError` for text of more than 1,000 characters, more than 10 levels, numbers that are not finite or
    have more than 30 digits, and anything that is not a literal.
    """
    if len(text) > _MAX_LITERAL:
        raise InputError(f"{what} has {len(text)} characters: write at most {_MAX_LITERAL}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise InputError(f"{what} (={text!r}) is not a number, a string in quotes, or a list of these") from None
    try:
        _check_literal(value, _MAX_LITERAL_DEPTH)
    except ValueError as error:
        raise InputError(f"{what} (={text!r}) cannot be read: {error}") from None
    return value


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, tags, dates and duplicate keys, and with a limit on the depth."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        if self.check_event(yaml.AliasEvent) or event.anchor is not None:
            raise ValueError(f"line {line} has an alias or an anchor: write the value out")
        if event.tag is not None:
            raise ValueError(f"line {line} has the tag {event.tag}: leave it out")
        if self._depth == _MAX_DEPTH:
            raise ValueError(f"line {line} has more than {_MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if not all(isinstance(key, Hashable) for key in keys):
            raise ValueError(f"line {node.start_mark.line + 1} has a list or a mapping as a key")
        return _make_dict(
            [(key, self.construct_object(value, deep)) for key, (_, value) in zip(keys, node.value, strict=True)]
        )

    def construct_number(self, node: Any) -> Any:
        _check_digits(self.construct_scalar(node))
        is_float = node.tag.endswith(":float")
        return _check_finite(self.construct_yaml_float(node)) if is_float else self.construct_yaml_int(node)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_number)


def _make_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Makes a dictionary from pairs, and refuses duplicate keys."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"`{key}` appears twice: keep one")
        made[key] = value
    return made


def _check_json_depth(text: str) -> None:
    """Refuses deep nesting before the recursive parser reads the text."""
    depth = 0
    for token in _JSON_TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it has more than {_MAX_DEPTH} levels")


def _check_digits(digits: str) -> str:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} characters: write at most {_MAX_DIGITS}")
    return digits


def _check_finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"the number {number} is not finite")
    return number


def _check_literal(value: Any, levels: int) -> None:
    if isinstance(value, float):
        _check_finite(value)
    if isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
        raise ValueError(f"it has a number of more than {_MAX_DIGITS} digits")
    if isinstance(value, tuple | list | set | dict):
        if levels == 0:
            raise ValueError(f"it has more than {_MAX_LITERAL_DEPTH} levels")
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            _check_literal(item, levels - 1)
