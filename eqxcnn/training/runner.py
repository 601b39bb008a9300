"""What one run logs, saves and tests between its epochs and at its end."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..inference import ImageClassifier, save
from ..runs.folder import Run
from ..runs.logs import Logs
from ..runs.progress import TrainingProgress, log_line
from ..runs.stopping import best_epochs, check_finite, should_stop
from .batch_stats import recompute_batch_stats
from .evaluate import Evaluator, Scores
from .job import Job
from .preview import first_images
from .state import Sums, TrainState


@dataclass(frozen=True)
class Result:
    """The result of a run.

    - `folder`: the run's folder; `eqxcnn.load(folder)` loads the trained classifier.
    - `test`: scores on the test split, evaluated once, at the end.
    - `metrics`: the rows of `metrics.jsonl`: one per epoch, then the test's.
    """

    folder: Path
    test: Scores
    metrics: list[dict[str, Any]]


class EpochRunner:
    """Logs, saves and tests one run.

    **Arguments:**

    - `job`, `run`: the job, and the folder of its run.
    - `logs`: logs besides the run's own file.
    - `progress`: shows each epoch's metrics.
    - `label`: stands before them if several runs share the console.
    """

    def __init__(self, job: Job, run: Run, logs: Logs, progress: TrainingProgress, label: str = "") -> None:
        self._job, self._run, self._logs = job, run, logs
        self._progress, self._label = progress, label
        self._make_evaluator = partial(
            Evaluator, job.setup.mean, job.setup.std, len(job.info.class_names), job.recipe.eval_batch_size
        )
        self._evaluator = self._make_evaluator()
        self._saved = monotonic()

    def start(self) -> None:
        """Logs the first images that the model will see, if the run is new."""
        if self._logs.is_new:
            self._logs.image("first_images", self._draw_first_images)

    def end_epoch(self, epoch: int, train: TrainState, images: int, seconds: float) -> TrainState:
        """Evaluates and logs an epoch, and keeps its weights if they are among the best.

        **Arguments:**

        - `epoch`: counted from 0.
        - `images`, `seconds`: number of images that it trained on, and how long that took.

        **Returns:** the state for the next epoch.
        """
        recipe = self._job.recipe
        row = self._evaluate_epoch(epoch, train, images, seconds)
        self._run.log(row)
        self._logs.row(row)
        self._progress.epoch(row, self._label)
        if count := max(recipe.best_checkpoints, recipe.keep == "best"):
            best = best_epochs(recipe, self._run.metrics)[:count]
            if epoch + 1 in best:
                steps = [self._job.steps_after(each) for each in best]
                self._run.best.save(int(train.step), train, others=steps)
        return replace(train, sums=Sums.zero())

    def should_stop(self) -> bool:
        """Returns whether early stopping ends the run, and says so."""
        recipe = self._job.recipe
        if not should_stop(recipe, self._run.metrics):
            return False
        reason = f"{recipe.monitor} has not improved for {recipe.early_stop_epochs} epochs: stopping"
        log_line(reason, self._progress.console)
        return True

    def finish(self, train: TrainState, started: float, first_step: int) -> Result:
        """Chooses the weights, tests them, and writes them to `model/`, which marks the run as finished.

        **Arguments:**

        - `started`: time at which the run, or its resumption, was called.
        - `first_step`: step at which it started, above 0 if resumed.
        """
        job, recipe = self._job, self._job.recipe
        if recipe.keep == "best":
            train = self._restore_best(train)
        if recipe.average == "swa":
            train = recompute_batch_stats(job, train)
        tester = self._make_evaluator(views=recipe.test_views)
        test = tester(*train.averaged, job.test.images, job.test.labels)
        row = {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_count": test.count}
        # From call to test, decoding and compilation included; a resumed run counts its own part only.
        row |= {"from_step": first_step, "wall_seconds": round(monotonic() - started, 3)}
        self._run.log(row)
        self._logs.row(row)
        self._logs.image("confusion", partial(self._draw_confusion, test))
        _save_classifier(job, self._run, train)
        return Result(self._run.folder, test, self._run.metrics)

    def is_checkpoint_due(self) -> bool:
        """Returns whether the last checkpoint is `checkpoint_seconds` old."""
        return monotonic() - self._saved >= self._job.recipe.checkpoint_seconds

    def save(self, train: TrainState) -> None:
        """Saves a checkpoint.

        **Raises:** `InputError` if the epoch's loss is not finite, or the checkpoint cannot be written.
        """
        self._check_finite(train)
        self._run.checkpoints.save(int(train.step), train)
        self._saved = monotonic()

    def _draw_first_images(self) -> UInt8[np.ndarray, "h w 3"]:
        from ..plots.raster import tile_images

        return tile_images(first_images(self._job))

    def _draw_confusion(self, scores: Scores) -> UInt8[np.ndarray, "h w 3"]:
        # Imported here, because Matplotlib is slow to import and few runs log images.
        from ..plots.figures import confusion_matrix
        from ..plots.raster import rasterize

        return rasterize(confusion_matrix(scores.confusion, self._job.info.class_names))

    def _restore_best(self, train: TrainState) -> TrainState:
        """Returns the train state of the best epoch, or the last one if no epoch logged the metric."""
        recipe = self._job.recipe
        best = [self._job.steps_after(each) for each in best_epochs(recipe, self._run.metrics)]
        restored = self._run.best.restore_latest(self._job.template, notify=log_line, steps=best[::-1])
        if restored is None:
            return train
        epoch = self._job.epochs_after(restored[0])
        log_line(f"epoch {epoch} had the best {recipe.monitor}: its weights are kept", self._progress.console)
        return restored[1]

    def _evaluate_epoch(self, epoch: int, train: TrainState, images: int, seconds: float) -> dict[str, Any]:
        """Returns the epoch's row of metrics."""
        self._check_finite(train)
        job, count = self._job, int(train.sums.count)
        row = {
            "epoch": epoch + 1,
            "step": int(train.step),
            "train_loss": float(train.sums.loss) / count,
            "train_accuracy": int(train.sums.correct) / count,
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
        }
        if failed := int(train.sums.failed):
            row["skipped_steps"] = failed
        if len(job.validation_rows):
            # SWA weights have no BatchNorm statistics before the end of the run, so evaluate the raw weights.
            weights = (train.model, train.state) if job.recipe.average == "swa" else train.averaged
            scores = self._evaluator(*weights, job.validation.images, job.validation.labels, job.validation_rows)
            row |= {"validation_loss": scores.loss, "validation_accuracy": scores.accuracy}
        return row

    def _check_finite(self, train: TrainState) -> None:
        check_finite(
            self._job.recipe,
            failed=int(train.sums.failed),
            first_failed=int(train.sums.first_failed),
            counted=int(train.sums.count),
            checkpoints=self._run.checkpoints,
            steps_per_epoch=self._job.steps_per_epoch,
        )


def _save_classifier(job: Job, run: Run, train: TrainState) -> None:
    """Writes the trained classifier to the run's `model/`."""
    model, state = train.averaged
    save(
        run.folder / "model",
        ImageClassifier(
            name=job.recipe.model,
            model=model,
            state=state,
            mean=job.setup.mean,
            std=job.setup.std,
            image_size=job.image_size,
            class_names=job.info.class_names,
            architecture=tuple(job.recipe.architecture_arguments.items()),
        ),
    )
