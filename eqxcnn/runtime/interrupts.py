"""Ctrl-C and SIGTERM as a request that the loop reads between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Training was asked to stop, and has saved.

    - `signal`: the signal's number; a command line exits with 128 more.
    - `folder`: the run that `--resume` goes on with.
    """

    def __init__(self, signal: int, folder: Path):
        super().__init__(f"stopped by {_name(signal)} and saved; go on with --resume {folder}")
        self.signal, self.folder = signal, folder


class Interrupts:
    """While entered, the first SIGINT or SIGTERM is noted in `received`; a second one acts as it always did."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        # Python delivers signals to the main thread only; elsewhere (a notebook's worker, a test) nothing is changed.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def _name(number: int) -> str:
    return signal.Signals(number).name
