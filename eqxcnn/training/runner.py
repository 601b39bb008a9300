"""Logs, saves and tests one run, between its epochs and at its end."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from ..inference import ImageClassifier
from ..runs.folder import Run
from ..runs.logs import Logs
from ..runs.progress import TrainingProgress, log_line
from ..runs.stopping import best_epochs, check_finite
from ..saved_classifier import save
from .batch_stats import recompute_batch_stats
from .callbacks import Callback, RunView, as_callbacks, wants_steps
from .evaluate import Evaluator, Scores, choose_batch_size
from .job import Job
from .result import Result
from .state import Sums, TrainState
from .watchers import EarlyStopping, RunLogs

__all__ = ["EpochRunner"]


class EpochRunner:
    """Logs, saves and tests one run.

    **Arguments:**

    - `job`, `run`: the job, and the folder of its run.
    - `logs`: the run's logs besides `metrics.jsonl`.
    - `progress`: shows each epoch's metrics.
    - `label`: printed before each epoch's metrics, if several runs share the console.
    """

    def __init__(self, job: Job, run: Run, logs: Logs, progress: TrainingProgress, label: str = "") -> None:
        self._job, self._run = job, run
        self._progress, self._label = progress, label
        self._make_evaluator = partial(
            Evaluator,
            job.setup.mean,
            job.setup.std,
            len(job.info.class_names),
            choose_batch_size(job.recipe.eval_batch_size, job.image_size),
            metrics=job.metrics,
            devices=job.devices,
        )
        self._evaluator = self._make_evaluator()
        self._callbacks = [RunLogs(job, logs), EarlyStopping(job), *as_callbacks(job.parts.callbacks)]
        # With several processes, only process 0 calls the callbacks. Process 0 tells the other processes if a
        # callback asks the run to stop.
        self._step_callbacks = [each for each in self._callbacks if wants_steps(each)]
        self._stop_requests: list[str] = []
        self._saved = monotonic()

    def start(self, train: TrainState) -> None:
        """Calls the callbacks before the first step."""
        self._call(self._callbacks, "on_start", train)

    @property
    def watches_steps(self) -> bool:
        """Whether a callback overrides `on_step`."""
        return bool(self._step_callbacks)

    def end_call(self, train: TrainState) -> None:
        """Runs `on_step` of the callbacks that override it, after each call of the compiled steps."""
        self._call(self._step_callbacks, "on_step", train)

    def end_epoch(self, epoch: int, train: TrainState, images: int, seconds: float) -> TrainState:
        """Evaluates and logs an epoch, and keeps its weights if they are among the best.

        **Arguments:**

        - `epoch`: counted from 0.
        - `images`, `seconds`: number of images trained on, and the time for training on them.

        **Returns:** the state for the next epoch.
        """
        recipe = self._job.recipe
        row = self._evaluate_epoch(epoch, train, images, seconds)
        self._run.log(row)
        self._progress.epoch(row, self._label)
        if count := max(recipe.best_checkpoints, recipe.keep == "best"):
            best = self._best_epochs()[:count]
            if epoch + 1 in best:
                steps = [self._job.steps_after(each) for each in best]
                self._run.best.save(int(train.step), self._job.devices.localize(train), others=steps)
        self._call(self._callbacks, "on_epoch", train)
        return replace(train, sums=self._job.devices.replicate(Sums.zero()))

    def should_stop(self) -> bool:
        """Returns whether a callback, such as early stopping, has asked the run to stop; prints the reason if so."""
        (requests, *_) = self._job.peers.gather(self._stop_requests)
        if not requests:
            return False
        log_line(f"{requests[0]}: stopping", self._progress.console)
        return True

    def finish(self, train: TrainState, started: float, first_step: int) -> Result:
        """Chooses the weights, tests them, and writes them to `model/`, which marks the run as finished.

        **Arguments:**

        - `started`: time at which `fit` or `resume` was called.
        - `first_step`: number of steps finished before this call of `fit` or `resume`; above 0 for a resumed run.
        """
        job, recipe = self._job, self._job.recipe
        if recipe.keep == "best":
            train = self._restore_best(train)
        if recipe.average == "swa":
            train = recompute_batch_stats(job, train)
        tester = self._make_evaluator(views=recipe.test_views)
        test = tester(*train.averaged, job.splits.test.images, job.splits.test.labels)
        row: dict[str, Any] = {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_count": test.count}
        row |= {f"test_{name}": value for name, value in test.metrics.items()}
        # The wall time runs from the call of `fit` or `resume` to the end of the test, including decoding and
        # compilation. It excludes the time before an interruption.
        row |= {"from_step": first_step, "wall_seconds": round(monotonic() - started, 3)}
        self._run.log(row)
        self._call(self._callbacks, "on_test", train, test)
        trained = job.devices.localize(train)
        if job.peers.is_first:
            _save_classifier(job, self._run, trained)
        self._call(self._callbacks, "on_end", train, test)
        return Result(self._run.folder, test, self._run.metrics, job.info.class_names)

    def is_checkpoint_due(self) -> bool:
        """Returns whether the last checkpoint is at least `checkpoint_seconds` old."""
        return monotonic() - self._saved >= self._job.recipe.checkpoint_seconds

    def save(self, train: TrainState) -> None:
        """Saves a checkpoint.

        **Raises:** `InputError` if the epoch's loss is not finite, or the checkpoint cannot be written.
        """
        self._check_finite(train)
        self._run.checkpoints.save(int(train.step), self._job.devices.localize(train))
        self._saved = monotonic()
        self._call(self._callbacks, "on_checkpoint", train)

    def _call(self, callbacks: Sequence[Callback], event: str, train: TrainState, test: Scores | None = None) -> None:
        if not callbacks:
            return
        train, step = self._job.devices.localize(train), int(train.step)
        if not self._job.peers.is_first:
            return
        epoch = self._job.epochs_after(step)
        folder, rows = self._run.folder, self._run.metrics
        for callback in callbacks:
            # Each callback gets its own copy of the rows, so that it cannot change the rows of the next callback.
            own = [dict(row) for row in rows]
            view = RunView(self._job.recipe, folder, epoch, step, own, train, self._stop_requests, test)
            getattr(callback, event)(view)

    def _best_epochs(self) -> list[int]:
        return best_epochs(self._job.recipe, self._run.metrics, self._job.lower_is_better)

    def _restore_best(self, train: TrainState) -> TrainState:
        """Returns the train state of the best epoch, or `train` if no epoch logged the monitored metric."""
        recipe = self._job.recipe
        best = [self._job.steps_after(each) for each in self._best_epochs()]
        restored = self._run.best.restore_latest(self._job.template, notify=log_line, steps=best[::-1])
        if restored is None:
            return train
        epoch = self._job.epochs_after(restored[0])
        log_line(f"epoch {epoch} had the best {recipe.monitor}: its weights are kept", self._progress.console)
        return self._job.devices.place_state(restored[1])

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
        if len(rows := job.splits.validation_rows):
            # SWA weights have no BatchNorm statistics before the end of the run, so evaluate the raw weights.
            weights = (train.model, train.state) if job.recipe.average == "swa" else train.averaged
            held_out = job.splits.validation
            scores = self._evaluator(*weights, held_out.images, held_out.labels, rows)
            row |= {"validation_loss": scores.loss, "validation_accuracy": scores.accuracy}
            row |= {f"validation_{name}": value for name, value in scores.metrics.items()}
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
    mean, std = job.devices.localize((job.setup.mean, job.setup.std))
    save(
        run.folder / "model",
        ImageClassifier(
            name=job.model_name,
            model=model,
            state=state,
            mean=mean,
            std=std,
            image_size=job.image_size,
            class_names=job.info.class_names,
            architecture=tuple(job.recipe.architecture_arguments.items()),
            resize=job.preprocess.resize,
            crop_fraction=job.preprocess.crop_fraction,
            interpolation=job.preprocess.interpolation,
        ),
    )
