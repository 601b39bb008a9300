"""A worker process for each compared library, so that no library changes the settings of another library."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock
from traceback import format_exception
from typing import Any

from eqxcnn.errors import InputError


class WorkerProcess:
    """A process that builds functions and, on request, calls one of them with a given number.

    Each compared library gets its own process, so that its process-wide settings, such as the memory allocator or the
    number of threads, do not affect the other libraries.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, worker_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(worker_end,), daemon=True)
        self._process.start()
        # With a second copy of this end open, `recv` would not notice that the worker has died.
        worker_end.close()
        self._num_functions, self._lock = 0, Lock()

    def build(self, builder: Callable[..., Callable[[int], Any]], *arguments: Any) -> Callable[[int], Any]:
        """Calls `builder(*arguments)` in the worker, and returns a proxy for the function that the builder returns.

        `builder`, `arguments` and the function's results are pickled.

        **Raises:** `InputError` if the builder raises it; `RuntimeError` with the traceback for any other exception in
        the worker.
        """
        with self._lock:
            self._request(builder, *arguments)
            index, self._num_functions = self._num_functions, self._num_functions + 1
        return lambda count: self._request(index, count)

    def close(self) -> None:
        """Ends the process; the functions built in it cannot be called afterwards."""
        # An idle worker ends when the connection closes; a busy one must be terminated.
        self._connection.close()
        self._process.join(timeout=5)
        self._process.terminate()

    def _request(self, target: Any, *arguments: Any) -> Any:
        try:
            self._connection.send((target, arguments))
            result, problem = self._connection.recv()
        except (EOFError, OSError) as error:
            raise InputError("the worker process of a compared library has died; is there enough memory?") from error
        if problem is not None:
            raise problem
        return result


def _serve(connection: Connection) -> None:
    """Builds or calls functions on request until the connection closes."""
    functions: list[Callable[[int], Any]] = []
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            target, arguments = connection.recv()
            result = problem = None
            try:
                if isinstance(target, int):
                    result = functions[target](*arguments)
                else:
                    functions.append(target(*arguments))
            except InputError as error:
                problem = error
            except Exception as error:
                # Sent as text, since not every exception can be pickled.
                problem = RuntimeError("".join(format_exception(error)))
            connection.send((result, problem))
