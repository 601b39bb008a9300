"""A process of its own for each library that is compared with, so that none has what another one sets up."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock
from traceback import format_exception
from typing import Any

from eqxcnn.errors import InputError


class Apart:
    """A process in which functions are made, and then called with a number from here.

    What one library does to its process (how it allocates memory, how many threads it has) does not reach the others.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        # Else nobody would tell us when it dies.
        theirs.close()
        self._made, self._lock = 0, Lock()

    def make(self, maker: Callable[..., Callable[[int], None]], *arguments: Any) -> Callable[[int], None]:
        """What `maker(*arguments)` gives over there, to be called from here; maker and arguments are pickled.

        **Raises:** an `InputError` that is raised over there; anything else as a `RuntimeError` with its traceback.
        """
        with self._lock:
            self._ask(maker, *arguments)
            number, self._made = self._made, self._made + 1
        return lambda count: self._ask(number, count)

    def close(self) -> None:
        """Ends the process; what was made there cannot be called any more."""
        # It ends by itself when nobody can ask any more; one that is in the middle of something does not look.
        self._end.close()
        self._process.join(timeout=5)
        self._process.terminate()

    def _ask(self, what: Any, *arguments: Any) -> None:
        try:
            self._end.send((what, arguments))
            problem = self._end.recv()
        except (EOFError, OSError) as error:
            raise InputError("a process that was compared with has died: is there memory for all?") from error
        if problem is not None:
            raise problem


def _serve(end: Connection) -> None:
    """Makes or calls what is asked for, until nobody asks any more."""
    made: list[Callable[[int], None]] = []
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            what, arguments = end.recv()
            try:
                if isinstance(what, int):
                    made[what](*arguments)
                else:
                    made.append(what(*arguments))
            except InputError as error:
                end.send(error)
            except Exception as error:
                # A bug, there or here: all of it is told, as text, since not every exception can be sent.
                end.send(RuntimeError("".join(format_exception(error))))
            else:
                end.send(None)
