"""A process of its own for each library that is compared with, so that none has what another one sets up."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from eqxcnn.errors import InputError


class Apart:
    """A process in which functions are made, and then called with a number from here.

    What one library does to its process (how it allocates memory, how many threads it has) does not reach the others.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs,), daemon=True).start()
        self._made = 0

    def make(self, maker: Callable[..., Callable[[int], None]], *arguments: Any) -> Callable[[int], None]:
        """What `maker(*arguments)` gives over there, to be called from here; maker and arguments are pickled.

        **Raises:** what is raised over there.
        """
        self._ask(maker, *arguments)
        number, self._made = self._made, self._made + 1
        return lambda count: self._ask(number, count)

    def _ask(self, what: Any, *arguments: Any) -> None:
        self._end.send((what, arguments))
        try:
            problem = self._end.recv()
        except EOFError as error:
            raise InputError("a process that was compared with has died: is there memory for all?") from error
        if problem is not None:
            raise problem


def _serve(end: Connection) -> None:
    """Makes or calls what is asked for, until nobody asks any more."""
    made: list[Callable[[int], None]] = []
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            what, arguments = end.recv()
            try:
                if isinstance(what, int):
                    made[what](*arguments)
                else:
                    made.append(what(*arguments))
            except Exception as error:
                # Not every exception can be sent.
                end.send(error if isinstance(error, InputError) else InputError(f"{type(error).__name__}: {error}"))
            else:
                end.send(None)
