"""The progress of a run on standard error: a live line in a terminal, one plain line per epoch elsewhere."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import printable

__all__ = ["TrainingProgress", "log_line"]

#: Minimum number of seconds between two updates of the live line. Updates are rare because each one waits for the steps
#: in flight.
_REFRESH = 0.5


class TrainingProgress:
    """Shows epoch, loss, accuracy, images per second and the time left.

    **Arguments:**

    - `steps`, `steps_per_epoch`: number of steps in the run, and in an epoch.
    - `batch_size`: number of images per step.
    - `first_step`: step at which training starts, above 0 for a resumed run.
    - `console`: the console to print on; by default standard error, so that results can be piped.
    """

    def __init__(
        self, steps: int, steps_per_epoch: int, batch_size: int, first_step: int = 0, console: Console | None = None
    ):
        self._epochs = -(-steps // steps_per_epoch)
        self._steps_per_epoch, self._batch_size = steps_per_epoch, batch_size
        self.console = console or _make_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),  # so that the whole line fits into 80 columns
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (self.console.is_terminal or _has_widgets(self.console)),
        )
        self._task = self._bar.add_task("starting", total=steps, completed=first_step, shown="compiling")
        self._last, self._last_step = monotonic(), first_step

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def step(self, step: int, read_metrics: Callable[[], tuple[float, float]]) -> None:
        """Updates the live line, at most twice a second and only in a terminal.

        **Arguments:**

        - `step`: number of finished steps.
        - `read_metrics`: returns the epoch's mean loss and accuracy so far; it may wait for the device.
        """
        now = monotonic()
        if self._bar.disable or now - self._last < _REFRESH:
            return
        loss, accuracy = read_metrics()
        rate = (step - self._last_step) * self._batch_size / (monotonic() - self._last)
        shown = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {rate:,.0f} images/s"
        epoch = min(step // self._steps_per_epoch + 1, self._epochs)
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}", shown=shown)
        self._last, self._last_step = monotonic(), step

    def epoch(self, row: Mapping[str, Any], label: str = "") -> None:
        """Prints an epoch's row of metrics; if several runs share the console, each row starts with a label."""
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


def _has_widgets(console: Console) -> bool:
    """Returns whether the console is a notebook that can update its output."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def log_line(line: str, console: Console | None = None) -> None:
    """Prints a line with its control characters escaped. The line appears above the live line, if there is one; the
    default console is standard error."""
    (console or _make_console()).print(printable(line, 1000), markup=False)


def _make_console() -> Console:
    # Lines are not wrapped, so that each stays a single line in a log file.
    return Console(stderr=True, highlight=False, soft_wrap=True)
