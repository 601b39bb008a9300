"""Where what a run logs goes besides its own `metrics.jsonl`: a table, TensorBoard, Weights & Biases."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from ...errors import InputError
from ...training.job import Job
from ...training.pictures import confusion_picture, first_images
from ..folder import Run
from .csv_log import CsvLog
from .tensorboard_log import TensorBoardLog
from .wandb_log import WandbLog


@runtime_checkable
class Log(Protocol):
    """One of the places; it is closed when its `with` block ends.

    - `shows_pictures`: whether it does anything with them.
    """

    shows_pictures: bool

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Takes a row that `metrics.jsonl` already has, of this step of the run."""

    def picture(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Takes a picture, where it shows them."""


#: By the names that a recipe has for them; each opens its place for a run, to go on there where it has been before.
_LOGS: dict[str, Callable[[Run], AbstractContextManager[Log]]] = {
    "csv": CsvLog,
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
}
#: What those need that does not come with eqxcnn itself.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Logs:
    """The places that a run logs to, none of them or several.

    **Arguments:**

    - `logs`: the places, open.
    - `rows`: what the run has logged before.
    """

    def __init__(self, logs: Sequence[Log], rows: Sequence[Mapping[str, Any]]) -> None:
        self._logs, self._is_new = logs, not rows
        self._step = rows[-1].get("step", 0) if rows else 0

    def start(self, job: Job) -> None:
        """Shows the first images that the model is to see; to be called once, before the first step."""
        if self._is_new and self._image_logs:
            self._show("first_images", first_images(job))

    def row(self, row: Mapping[str, Any]) -> None:
        """Passes on a row that `Run.log` has written: an epoch's, or the last one, of the test."""
        self._step = row.get("step", self._step)
        for log in self._logs:
            log.row(row, self._step)

    def confusion(self, confusion: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> None:
        """Shows the test's counts, true class by predicted class."""
        if self._image_logs:
            self._show("confusion", confusion_picture(confusion, class_names))

    @property
    def _image_logs(self) -> list[Log]:
        return [log for log in self._logs if log.shows_pictures]

    def _show(self, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        for log in self._image_logs:
            log.picture(name, pixels, self._step)


@contextmanager
def open_logs(names: Sequence[str], run: Run) -> Iterator[Logs]:
    """Opens places for a run, and closes them at the end of the `with` block.

    **Arguments:**

    - `names`: the recipe's `log`.
    - `run`: whose rows they get; one that goes on has been rewound.

    **Raises:** `InputError` when a package is missing, or a place cannot be opened.
    """
    check_logs(names)
    with ExitStack() as stack:
        yield Logs([stack.enter_context(_LOGS[name](run)) for name in dict.fromkeys(names)], run.metrics)


def check_logs(names: Sequence[str]) -> None:
    """Refuses, at no cost, what `open_logs` would refuse for want of a package.

    **Raises:** `InputError` naming the package and how to install it.
    """
    for name in names:
        package = _PACKAGES.get(name)
        # Weights & Biases makes folders called `wandb`, which Python takes for packages without a file of their own.
        if package is not None and ((spec := find_spec(package)) is None or spec.origin is None):
            raise InputError(f"`log` (={name!r}) needs the package {package}: pip install 'eqxcnn[log]'")
