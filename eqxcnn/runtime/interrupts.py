"""Turns Ctrl-C and SIGTERM into a request to stop, which the training loop reads between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(Exception):
    """Training was interrupted by a signal and has saved its state.

    - `signal`: the number of the signal; command lines exit with 128 plus this number.
    - `folder`: the run folder to pass to `--resume`.
    """

    def __init__(self, signal: int, folder: Path):
        super().__init__(f"stopped by {_signal_name(signal)} and saved; continue with --resume {folder}")
        self.signal, self.folder = signal, folder


class Interrupts:
    """A context manager that stores the first SIGINT or SIGTERM in `received`; a second signal has its usual effect."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._old_handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        # Only the main thread may set signal handlers; in other threads (a notebook's worker, a test) nothing changes.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old_handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._old_handlers:
            signal.signal(*self._old_handlers.popitem())


def _signal_name(number: int) -> str:
    return signal.Signals(number).name
