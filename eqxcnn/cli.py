"""What every command line does around its work: one sentence for a user's mistake, the right exit code for each end."""

import errno
import sys
from collections.abc import Callable, Sequence

from .errors import InputError


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main(arguments)` and exits: 0 when done, 1 after a user's mistake, 128 + n after signal n."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt:
        _stop("stopped before anything was there to save", 130)
    except BrokenPipeError:
        # The reader of our output, `head` say, has had enough.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _stop(f"error: the disk is full{f', writing {error.filename}' if error.filename else ''}", 1)


def _stop(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)
