"""A quick check of whether the Hugging Face Hub can be reached; the Hub's client would retry for half a minute."""

import ssl
import threading
import urllib.error
import urllib.request
from http.client import HTTPException

__all__ = ["why_offline", "why_unreachable"]

_TIMEOUT_SECONDS = 4.0


def why_offline() -> str | None:
    """Returns the reason why the Hub cannot be used: `HF_HUB_OFFLINE` or a failed connection; else `None`."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "`HF_HUB_OFFLINE` is set"
    unreachable = why_unreachable()
    return None if unreachable is None else str(getattr(unreachable, "reason", unreachable)).rstrip(".")


def why_unreachable() -> OSError | None:
    """Returns the error that keeps this machine from reaching the Hub, or `None` if the Hub responds.

    The error is a `TimeoutError` if the Hub does not respond within `_TIMEOUT_SECONDS`.
    """
    from huggingface_hub import constants

    results: list[OSError | None] = []

    def request() -> None:
        try:
            head = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(head, timeout=_TIMEOUT_SECONDS).close()
            results.append(None)
        except (urllib.error.HTTPError, HTTPException):
            results.append(None)  # The server responds; the client library explains HTTP errors better.
        except OSError as error:
            # Certificate errors do not count here, because the client library may trust more certificates.
            results.append(None if isinstance(getattr(error, "reason", None), ssl.SSLError) else error)
        except ValueError as error:  # `HF_ENDPOINT` is not a valid URL.
            results.append(ConnectionError(str(error)))

    # The request runs in a thread, because the DNS lookup ignores the timeout. A daemon thread does not delay the
    # program's exit.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_SECONDS)
    return results[0] if results else TimeoutError(f"no answer within {_TIMEOUT_SECONDS:.0f} s")
