"""Error messages, exit codes and progress bars shared by all command lines."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import TextIOBase, TextIOWrapper
from typing import Any, TextIO, cast

from .errors import InputError, printable

__all__ = ["explain_error", "run_command", "show_progress"]

#: Errors caused by a path, its permissions or its file system, and not by a bug.
_USER_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS, errno.EFBIG
)  # fmt: skip

#: The longest path that Linux opens, in characters. If an argument is longer, error output is escaped and shortened.
_MAX_LINE = 4096
#: The longest title of a progress bar, in characters; the title and the bar share one line.
_MAX_TITLE = 40


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main(arguments)` and sets the exit code: 0 on success, 128 + n after signal n, and 1 after a user error.

    User errors are printed as one sentence each: an `InputError`, a full disk, an unusable path, and too little memory.
    Any other exception is a bug and keeps its traceback.
    """
    # Pillow warns about odd but readable files, and logs its errors before raising them.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if isinstance(sys.stdout, TextIOWrapper):
        # A class name may contain characters that the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = sys.argv[1:]
        is_odd = any(argument != printable(argument, _MAX_LINE) for argument in arguments)
        with redirect_stderr(cast(TextIO, _EscapedErrors(sys.stderr))) if is_odd else nullcontext():
            main(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _exit("interrupted before there was anything to save", 130)
    except BrokenPipeError:
        # The program that reads the output, such as `head`, has closed the pipe.
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        sentence = explain_error(error)
        if sentence is None:
            raise
        _exit(f"error: {sentence}", 1)


def explain_error(error: BaseException) -> str | None:
    """Returns one sentence that explains an error caused by the user, the machine or a file, or `None` for a bug."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(InputError(f"the disk is full{f' while writing {error.filename}' if error.filename else ''}"))
    if isinstance(error, OSError) and error.errno in _USER_ERRORS and error.filename:
        return str(InputError(f"`{error.filename}` cannot be used: {error.strerror}"))
    # JAX raises a generic exception if device memory is full; importing JAX to catch it would delay every command.
    is_device = type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and "RESOURCE_EXHAUSTED" in str(error)
    if isinstance(error, MemoryError) or is_device:
        detail = (str(error).strip() or "the system refused to allocate more").splitlines()[0]
        sentence = f"there is not enough memory ({detail}): reduce the batch size, the image size or the model"
        return str(InputError(sentence))
    return None


@contextmanager
def show_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """If standard error is a terminal, shows a progress bar on it; yields a function that advances the bar."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # By default, Rich redirects all of standard output to the bar's terminal.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(escape(printable(title, _MAX_TITLE)), total=total)
        yield lambda done: bar.advance(task, done)


class _EscapedErrors(TextIOBase):
    """Standard error with control characters escaped: tyro and argparse quote arguments without escaping them."""

    def __init__(self, errors: Any) -> None:
        self._errors = errors

    def write(self, text: str, /) -> int:
        self._errors.write("\n".join(printable(line, _MAX_LINE // 4) for line in text.split("\n")))
        return len(text)

    def flush(self) -> None:
        self._errors.flush()


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
