"""The error for invalid user input, and the suggestion of similar names."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_NAMES = 20


class InputError(ValueError):
    """The caller's input is invalid. The message is one sentence that names the input and says what to do.

    The command lines print the message without a traceback. Any other exception is a bug and keeps its traceback.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of an "unknown name" message: the closest known names, or the first ones if none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{match}`' for match in close)}?"
    end = ", ..." if len(names) > _MAX_NAMES else "."
    return f"known: {', '.join(f'`{known_name}`' for known_name in names[:_MAX_NAMES])}{end}"
