"""The exception for invalid user input, and functions that make text safe to print and suggest similar names."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["InputError", "nearest", "printable", "show"]

_MAX_NAMES = 20
_MAX_NAME = 100
_MAX_MESSAGE = 1_000
#: Integers with more digits than this are not printed, because Python refuses to convert very long integers to text.
_MAX_DIGITS = 30


class InputError(ValueError):
    """The caller's input is invalid. The message is one sentence that names the input and says what to do.

    The command lines print the message without a traceback. Any other exception is a bug and keeps its traceback. A
    message may quote any input: control characters are escaped, and a long message is shortened.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, _MAX_MESSAGE))


def printable(text: str, limit: int = 200) -> str:
    """Returns text that is safe to print on a terminal, in one line.

    Control characters, newlines, text-direction marks and lone surrogates are escaped as in Python source, for example
    `\\x1b`. If the text is longer than `limit` characters, its middle is left out.
    """
    if len(text) > limit:
        end = limit // 4
        text = f"{text[: limit - end - 5]} ... {text[len(text) - end :]}"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class _Show(reprlib.Repr):
    """A `repr` of bounded length and depth that never raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxtuple, self.maxlist, self.maxdict, self.maxset = 4, 10, 10, 10, 10
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**_MAX_DIGITS else f"a number of more than {_MAX_DIGITS} digits"


def show(value: Any) -> str:
    """Returns a short representation of any value for an error message."""
    return _Show().repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an "unknown name" message: the closest known names; if no name is close, the first names."""
    names = sorted(known)
    # The name is shortened, because the time of the comparison is quadratic in its length.
    close = get_close_matches(name[:_MAX_NAME], names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{match}`' for match in close)}?"
    end = ", ..." if len(names) > _MAX_NAMES else "."
    return f"known: {', '.join(f'`{known_name}`' for known_name in names[:_MAX_NAMES])}{end}"
