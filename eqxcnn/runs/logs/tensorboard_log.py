"""A run's metrics and images as TensorBoard event files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from time import time
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ...errors import InputError
from ..folder import Run

__all__ = ["TensorBoardLog"]


class TensorBoardLog:
    """Writes event files into the run's `tensorboard/`: a new file each time the run starts or is resumed.

    Uses tensorboardX's `EventsWriter` directly, since the thread of a `SummaryWriter` blocks training forever if it
    cannot write.

    **Raises:** `InputError` if the files cannot be written.
    """

    shows_images = True

    def __init__(self, run: Run) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # The classes of `event_pb2` are made on import, so type checkers do not see them.
        self._events: Any = event_pb2
        self._folder, rows = run.folder / "tensorboard", run.metrics
        with self._report_write_errors():
            self._folder.mkdir(exist_ok=True)
            # File names contain the time in seconds; a number distinguishes two files of the same second.
            files = len(list(self._folder.iterdir()))
            self._writer = EventsWriter(str(self._folder / "events"), f".{files}")
        if files:
            # Tells TensorBoard to drop the events from step `first` on that are in earlier files.
            first = rows[-1]["step"] + 1 if rows else 0
            self._write(first, session_log=self._events.SessionLog(status=self._events.SessionLog.START))

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Writes each number of the row as a scalar under its name; leaves out lists, which TensorBoard cannot show."""
        from tensorboardX.summary import scalar

        for name, value in row.items():
            if name != "step" and not isinstance(value, list):
                self._write(step, summary=scalar(name, value))
        self._flush()

    def image(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Writes an image."""
        from tensorboardX.summary import image

        self._write(step, summary=image(name, pixels, dataformats="HWC"))
        self._flush()

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, *exception: object) -> None:
        # Every row was flushed when it was logged, and a failed write was reported at that time.
        with suppress(OSError):
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        with self._report_write_errors():
            self._writer.write_event(self._events.Event(wall_time=time(), step=step, **content))

    def _flush(self) -> None:
        with self._report_write_errors():
            self._writer.flush()

    @contextmanager
    def _report_write_errors(self) -> Iterator[None]:
        """Turns an `OSError` into an `InputError` that names the folder."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"`{self._folder}` cannot be written: {error.strerror}; the checkpoints are still there"
            ) from error
