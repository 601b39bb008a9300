"""Whether the Hugging Face Hub answers, asked before its libraries wait for it half a minute."""

import ssl
import threading
import urllib.error
import urllib.request
from http.client import HTTPException

_PATIENCE = 4.0


def why_unreachable() -> OSError | None:
    """What stands between this machine and the Hub, or `None`, after `_PATIENCE` seconds at most."""
    from huggingface_hub import constants

    answers: list[OSError | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_PATIENCE).close()
            answers.append(None)
        except (urllib.error.HTTPError, HTTPException):
            answers.append(None)  # It answered, whatever it said: its client library knows better what to do.
        except OSError as error:
            # Which certificates count is the client library's business too.
            answers.append(None if isinstance(getattr(error, "reason", None), ssl.SSLError) else error)

    # In a thread, because the look-up of a name obeys no timeout; a daemon, because the program may end before it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return answers[0] if answers else TimeoutError(f"no answer within {_PATIENCE:.0f} s")
