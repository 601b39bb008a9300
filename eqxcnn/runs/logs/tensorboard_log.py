"""A run's metrics and pictures as files that TensorBoard reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from time import time
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ...errors import InputError
from ..folder import Run


class TensorBoardLog:
    """Writes event files to the run's `tensorboard/`, one each time the run starts or goes on.

    The writer is the one below tensorboardX's `SummaryWriter`, whose thread leaves training waiting for ever when it
    cannot write.

    **Raises:** `InputError` when they cannot be written.
    """

    shows_pictures = True

    def __init__(self, run: Run) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # Its classes are made on import, where no type checker sees them.
        self._events: Any = event_pb2
        self._folder, rows = run.folder / "tensorboard", run.metrics
        with self._told():
            self._folder.mkdir(exist_ok=True)
            # Names have the second in them, and one that is there already would be overwritten.
            files = len(list(self._folder.iterdir()))
            self._writer = EventsWriter(str(self._folder / "events"), f".{files}")
        if files:
            # What the earlier files have from this step on is logged again.
            first = rows[-1]["step"] + 1 if rows else 0
            self._write(first, session_log=self._events.SessionLog(status=self._events.SessionLog.START))

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Writes each number of the row as a scalar under its own name."""
        from tensorboardX.summary import scalar

        for name, value in row.items():
            if name != "step":
                self._write(step, summary=scalar(name, value))
        self._flush()

    def picture(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Writes it as an image."""
        from tensorboardX.summary import image

        self._write(step, summary=image(name, pixels, dataformats="HWC"))
        self._flush()

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, *exception: object) -> None:
        # All of it was flushed before; if that failed, somebody has been told.
        with suppress(OSError):
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        with self._told():
            self._writer.write_event(self._events.Event(wall_time=time(), step=step, **content))

    def _flush(self) -> None:
        with self._told():
            self._writer.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells a disk's error as the user's to mend."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"`{self._folder}` cannot be written: {error.strerror}; the checkpoints are still there"
            ) from error
