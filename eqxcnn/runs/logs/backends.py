"""The logs of a run besides `metrics.jsonl`: a CSV table, TensorBoard, Weights & Biases."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from ...errors import InputError
from ..folder import Run
from .csv_log import CsvLog
from .tensorboard_log import TensorBoardLog
from .wandb_log import WandbLog

__all__ = ["Log", "Logs", "check_logs", "open_logs"]


@runtime_checkable
class Log(Protocol):
    """One log, closed at the end of its `with` block.

    - `shows_images`: whether the log stores images.
    """

    shows_images: bool

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Logs the row of step `step`; `metrics.jsonl` already holds the row."""

    def image(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Logs an image."""


#: Maps each name that a recipe's `log` may contain to a class. The class opens a run's log, or continues the log of a
#: resumed run.
_LOGS: dict[str, Callable[[Run], AbstractContextManager[Log]]] = {
    "csv": CsvLog,
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
}
#: Optional packages that a log needs; `pip install 'eqxcnn[log]'` installs them.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Logs:
    """All logs of a run. The attribute `is_new` is true if the run has logged nothing yet.

    **Arguments:**

    - `logs`: the open logs.
    - `rows`: the rows that the run has logged before.
    """

    def __init__(self, logs: Sequence[Log], rows: Sequence[Mapping[str, Any]]) -> None:
        self._logs, self.is_new = logs, not rows
        self._image_logs = [log for log in logs if log.shows_images]
        self._step = rows[-1].get("step", 0) if rows else 0

    def row(self, row: Mapping[str, Any]) -> None:
        """Logs a row that `Run.log` has written: the row of an epoch, or the row of the test."""
        self._step = row.get("step", self._step)
        for log in self._logs:
            log.row(row, self._step)

    def image(self, name: str, make_pixels: Callable[[], UInt8[np.ndarray, "h w 3"]]) -> None:
        """Logs an image. Calls `make_pixels` only if one of the logs stores images."""
        if self._image_logs:
            pixels = make_pixels()
            for log in self._image_logs:
                log.image(name, pixels, self._step)


@contextmanager
def open_logs(names: Sequence[str], run: Run) -> Iterator[Logs]:
    """Opens the logs of a run, and closes them at the end of the `with` block.

    **Arguments:**

    - `names`: the recipe's `log`.
    - `run`: the run; `Run.rewind` must have been called on a resumed run.

    **Raises:** `InputError` if a package is missing, or a log cannot be opened.
    """
    check_logs(names)
    with ExitStack() as stack:
        yield Logs([stack.enter_context(_LOGS[name](run)) for name in dict.fromkeys(names)], run.metrics)


def check_logs(names: Sequence[str]) -> None:
    """Checks, before any work, that the packages of the named logs are installed.

    **Raises:** `InputError` naming the missing package and how to install it.
    """
    for name in names:
        package = _PACKAGES.get(name)
        # wandb creates folders named `wandb`. Python treats such a folder as a namespace package, whose `origin` is
        # `None`.
        if package is not None and ((spec := find_spec(package)) is None or spec.origin is None):
            raise InputError(f"`log` (={name!r}) needs the package {package}: pip install 'eqxcnn[log]'")
