"""Explains errors of the Hub's client in one sentence each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InputError
from .address import HubAddress

__all__ = ["explain_problems"]

_LOG_IN = "log in with `hf auth login`, or set `HF_TOKEN`"


@contextmanager
def explain_problems(address: HubAddress) -> Iterator[None]:
    """Turns errors of the Hub and of the connection into an `InputError`; errors of local files pass through.

    In this context, the client shows progress bars only in a terminal.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library of the client depends on the client's version; the base classes of `HfHubHTTPError` include the
    # error class of that library.
    # The client raises a ValueError if the server refuses an upload or a card, and a RuntimeError if the transfer of a
    # large file fails.
    bases: tuple[Any, ...] = HfHubHTTPError.__bases__
    try:
        with _progress_in_terminal_only():
            yield
    except InputError:
        raise
    except (*bases, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise
        raise InputError(_explain(error, address)) from error


@contextmanager
def _progress_in_terminal_only() -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    # If the user has set the environment variable `HF_HUB_DISABLE_PROGRESS_BARS`, nothing is changed.
    is_changed = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not sys.stderr.isatty()
    if is_changed:
        disable_progress_bars()
    try:
        yield
    finally:
        if is_changed:
            enable_progress_bars()


def _explain(error: BaseException, address: HubAddress) -> str:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    name = f"`{address.repository}`"
    # If the upload of a large file fails, the client raises a RuntimeError whose cause has the Hub's response.
    error = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: ask for access on its page on the Hub, and {_LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no model {name} on the Hugging Face Hub, or it is private: check the name, or {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision `{address.revision}`: give a branch, a tag or a commit hash"
    if status == 401:
        return f"the Hugging Face Hub does not accept your token for {name}: {_LOG_IN}"
    if status == 403:
        return f"the Hugging Face Hub refuses access to {name} ({_reason(error)}): use a token with write access to it"
    return f"the Hugging Face Hub cannot be used for {name} ({_reason(error)}): try again later"


def _reason(error: BaseException) -> str:
    """Returns the Hub's message if there is one, or else the client's."""
    text = getattr(error, "server_message", None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
