"""Error messages and exit codes shared by all command lines."""

import errno
import sys
from collections.abc import Callable, Sequence

from .errors import InputError


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main(arguments)` and sets the exit code: 0 on success, 1 after an `InputError`, 128 + n after signal n."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        _exit(f"error: {error}", 1)
    except KeyboardInterrupt:
        _exit("interrupted before there was anything to save", 130)
    except BrokenPipeError:
        # The program that reads the output, such as `head`, has closed it.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _exit(f"error: the disk is full{f', writing {error.filename}' if error.filename else ''}", 1)


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
