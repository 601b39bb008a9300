"""What the library says to a user whose input cannot work, in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 20


class InputError(ValueError):
    """The caller's input is wrong; the message is one sentence that names it and says what to do.

    The command lines print the message without a traceback. Any other exception is a bug of ours and keeps its own.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" sentence: the closest known names, or the first ones when none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{match}`' for match in close)}?"
    more = ", ..." if len(names) > _SHOWN else ""
    return f"known: {', '.join(f'`{each}`' for each in names[:_SHOWN])}{more}."
