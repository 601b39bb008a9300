"""What a person sees while a run trains: a live line in a terminal, a plain line an epoch elsewhere."""

from collections.abc import Mapping
from time import monotonic
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..training.step import TrainState

#: Seconds between two looks at the device's sums: each waits for the steps under way.
_REFRESH = 0.5


class TrainingProgress:
    """Tells how far a run is: epoch, loss, accuracy, images a second, time left.

    **Arguments:**

    - `steps`, `steps_per_epoch`, `batch_size`: the run's size.
    - `first_step`: where it starts (above 0 when resumed).
    - `console`: where to; standard error by default, so that results can be piped.
    """

    def __init__(
        self, steps: int, steps_per_epoch: int, batch_size: int, first_step: int = 0, console: Console | None = None
    ):
        self._epochs = -(-steps // steps_per_epoch)
        self._steps_per_epoch, self._batch_size = steps_per_epoch, batch_size
        self.console = console or _console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),  # all of the line fits 80 columns
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=steps, completed=first_step, shown="compiling")
        self._last, self._last_step = monotonic(), first_step

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def step(self, step: int, train: TrainState) -> None:
        """Shows the run after its step `step`, at most twice a second and only where somebody can see it."""
        now = monotonic()
        if self._bar.disable or now - self._last < _REFRESH:
            return
        # Of all seeds where there are many; waits until the device is there.
        loss, correct, count = (float(np.sum(each)) for each in (train.sums.loss, train.sums.correct, train.sums.count))
        count = max(count, 1)
        rate = (step - self._last_step) * self._batch_size / (monotonic() - self._last)
        shown = f"loss {loss / count:.4f}  accuracy {correct / count:.2%}  {rate:,.0f} images/s"
        epoch = min(step // self._steps_per_epoch + 1, self._epochs)
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", shown=shown)
        self._last, self._last_step = monotonic(), step

    def epoch(self, row: Mapping[str, Any], label: str = "") -> None:
        """Prints an epoch's row of metrics, with a label before it where there are many runs."""
        parts = [
            *([label] if label else []),
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}",
            f"loss {row['train_loss']:.4f}",
            f"accuracy {row['train_accuracy']:.2%}",
        ]
        if "validation_accuracy" in row:
            parts.append(f"validation {row['validation_accuracy']:.2%} (loss {row['validation_loss']:.4f})")
        parts += [f"{row['images_per_second']:,.0f} images/s", f"{row['seconds']:.1f} s"]
        log_line("  ".join(parts), self.console)


def log_line(line: str, console: Console | None = None) -> None:
    """Prints a line as it is, above the bar where there is one; to standard error by default."""
    (console or _console()).print(line, markup=False)


def _console() -> Console:
    # Standard error, so that results can be piped; no wrapping, so that a line stays one line in a file.
    return Console(stderr=True, highlight=False, soft_wrap=True)
