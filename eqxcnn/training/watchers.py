"""The callbacks that every run has: early stopping, and the logs other than `metrics.jsonl`."""

from functools import partial

import numpy as np
from jaxtyping import UInt8

from ..runs.logs import Logs
from ..runs.stopping import should_stop
from .callbacks import Callback, RunView
from .evaluate import Scores
from .job import Job
from .preview import first_images

__all__ = ["EarlyStopping", "RunLogs"]


class EarlyStopping(Callback):
    """Asks the run to stop when the recipe's `monitor` has not improved for `early_stop_epochs` epochs."""

    def __init__(self, job: Job) -> None:
        self._lower_is_better = job.lower_is_better

    def on_start(self, run: RunView) -> None:
        """Requests a stop if a resumed run has already gone `early_stop_epochs` epochs without improvement."""
        self.on_epoch(run)

    def on_epoch(self, run: RunView) -> None:
        """Requests a stop if the run has gone `early_stop_epochs` epochs without improvement."""
        if should_stop(run.recipe, run.rows, self._lower_is_better):
            run.request_stop(f"{run.recipe.monitor} has not improved for {run.recipe.early_stop_epochs} epochs")


class RunLogs(Callback):
    """Writes metrics and images to the recipe's logs."""

    def __init__(self, job: Job, logs: Logs) -> None:
        self._job, self._logs = job, logs

    def on_start(self, run: RunView) -> None:
        """Logs the first images that the model will see, if the run is new."""
        if self._logs.is_new:
            self._logs.image("first_images", self._draw_first_images)

    def on_epoch(self, run: RunView) -> None:
        """Logs the metrics of the epoch."""
        self._logs.row(run.metrics)

    def on_test(self, run: RunView) -> None:
        """Logs the metrics and the confusion matrix of the test."""
        self._logs.row(run.metrics)
        if run.test is not None:
            self._logs.image("confusion", partial(self._draw_confusion, run.test))

    def _draw_first_images(self) -> UInt8[np.ndarray, "h w 3"]:
        from ..plots.raster import tile_images

        return tile_images(first_images(self._job))

    def _draw_confusion(self, scores: Scores) -> UInt8[np.ndarray, "h w 3"]:
        # Imported here, because Matplotlib is slow to import and few runs log images.
        from ..plots.figures import confusion_matrix
        from ..plots.raster import rasterize

        return rasterize(confusion_matrix(scores.confusion, self._job.info.class_names))
