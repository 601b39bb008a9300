"""The training loop: epochs of steps, with what is logged, saved and shown between them."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp

from ..cost import count_parameters
from ..inference import ImageClassifier, save
from .compile import compiled
from .evaluation import Evaluator, Scores
from .interrupts import Interrupted, Interrupts
from .job import HostBatch, Job, prepare
from .memory import keep_freed_memory
from .progress import TrainingProgress, say
from .recipe import Recipe
from .run import Run
from .settings import keywords
from .statistics import with_statistics
from .step import Setup, Sums, TrainState, train_steps
from .stopping import best_epoch, check_finite, is_enough


@dataclass(frozen=True)
class Result:
    """What `fit` gives back.

    - `folder`: the run's folder; `eqxcnn.load(folder)` is the trained classifier.
    - `test`: its scores on the test split, looked at once, at the end.
    - `metrics`: the rows of `metrics.jsonl`, one an epoch.
    """

    folder: Path
    test: Scores
    metrics: list[dict[str, Any]]


def fit(recipe: Recipe, *, runs: Path | str = "runs") -> Result:
    """Trains a recipe from its start into a new folder under `runs`.

    **Raises:** `InputError` for a recipe or data that cannot work; `Interrupted` after Ctrl-C or SIGTERM, having saved.
    """
    started = monotonic()
    keep_freed_memory()
    job = prepare(recipe)
    with Run.create(Path(runs), job.recipe, job.info.name) as run:
        return _train(job, run, job.start, started)


def resume(folder: Path | str) -> Result:
    """Goes on with a run that was stopped, from its newest intact checkpoint, to the result it would have had.

    **Raises:** as `fit`; and `InputError` when `folder` is no run, is finished, or has no intact checkpoint.
    """
    started = monotonic()
    keep_freed_memory()
    with Run.open(Path(folder)) as run:
        job = prepare(run.recipe)
        restored = run.checkpoints.restore_latest(job.start, notify=say)
        return _train(job, run, job.start if restored is None else restored[1], started)


def _train(job: Job, run: Run, train: TrainState, started: float) -> Result:
    """Runs what remains of a job and leaves the folder finished; `started` is when it was asked for."""
    recipe, first = job.recipe, int(train.step)
    done = job.epochs_after(first)
    run.rewind(done)
    looks = partial(Evaluator, job.setup.mean, job.setup.std, len(job.info.class_names))
    evaluator = looks()
    # The same one where it can be: each is compiled by itself.
    tester = evaluator if recipe.test_views == "one" else looks(views=recipe.test_views)
    with (
        Interrupts() as interrupts,
        TrainingProgress(job.steps, job.steps_per_epoch, recipe.batch_size, first) as progress,
    ):
        say(_opening(job, run, first), progress.console)
        loop = _Loop(job, run, evaluator, interrupts, progress)
        for epoch in range(done, job.epochs):
            if is_enough(recipe, run.metrics):
                words = f"{recipe.monitor} has not become better for {recipe.early_stop_epochs} epochs: stopping"
                say(words, progress.console)
                break
            train = loop.epoch(epoch, train)
        if recipe.keep == "best":
            train = loop.best(train)
        if job.setup.average is not None and job.setup.average.kind == "swa":
            train = with_statistics(job, train)
        test = tester(*train.averaged, job.test.images, job.test.labels)
        last = {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_count": test.count}
        # From the call to here: decoding, compiling, training and evaluation. A resumed run tells its own part only.
        run.log(last | {"from_step": first, "wall_seconds": round(monotonic() - started, 3)})
    _save(job, run, train)
    return Result(run.folder, test, run.metrics)


class _Loop:
    """What the epochs of one run share."""

    def __init__(self, job: Job, run: Run, evaluator: Evaluator, interrupts: Interrupts, progress: TrainingProgress):
        self._job, self._run, self._evaluator = job, run, evaluator
        self._interrupts, self._progress = interrupts, progress
        self._steps = compiled(train_steps, donate=True) if job.recipe.jit else _uncompiled
        self._saved = monotonic()

    def epoch(self, epoch: int, train: TrainState) -> TrainState:
        """One pass, or what a checkpoint left of it; logs its row and saves when it is time."""
        job, started = self._job, monotonic()
        first = int(train.step) - epoch * job.steps_per_epoch
        last = min(job.steps_per_epoch, job.steps - epoch * job.steps_per_epoch)
        done = first
        for batches in job.batches(epoch, first):
            train = self._steps(job.setup, train, batches)
            done += jax.tree.leaves(batches)[0].shape[0]
            self._progress.step(epoch * job.steps_per_epoch + done, train)
            if done < last:
                self._checkpoint(train)
        row = self._row(epoch, train, (done - first) * job.recipe.batch_size, started)
        self._run.log(row)
        self._progress.epoch(row)
        if job.recipe.keep == "best" and best_epoch(job.recipe, self._run.metrics) == epoch + 1:
            self._run.best.save(int(train.step), train)
        train = replace(train, sums=Sums.zero())
        self._checkpoint(train)
        return train

    def best(self, train: TrainState) -> TrainState:
        """The train state of the best epoch, or the last one where no epoch had a metric."""
        restored = self._run.best.restore_latest(self._job.start, notify=say)
        if restored is None:
            return train
        epoch, monitor = self._job.epochs_after(restored[0]), self._job.recipe.monitor
        say(f"epoch {epoch} had the best {monitor}: its weights are kept", self._progress.console)
        return restored[1]

    def _checkpoint(self, train: TrainState) -> None:
        """Saves when asked to stop, or when the last save is long enough ago."""
        stopped = self._interrupts.received
        if stopped is None and monotonic() - self._saved < self._job.recipe.checkpoint_seconds:
            return
        self._check(train)
        self._run.checkpoints.save(int(train.step), train)
        self._saved = monotonic()
        if stopped is not None:
            raise Interrupted(stopped, self._run.folder)

    def _row(self, epoch: int, train: TrainState, images: int, started: float) -> dict[str, Any]:
        """The epoch's metrics; reading the sums waits for its last step, so the time is honest."""
        self._check(train)
        count = int(train.sums.count)
        seconds = monotonic() - started
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
        if len(self._job.validation_rows):
            job = self._job
            split = job.validation
            # What has no statistics of its own yet would be told worse than it is.
            seen = (train.model, train.state) if job.recipe.average == "swa" else train.averaged
            scores = self._evaluator(*seen, split.images, split.labels, job.validation_rows)
            row |= {"validation_loss": scores.loss, "validation_accuracy": scores.accuracy}
        return row

    def _check(self, train: TrainState) -> None:
        check_finite(self._job.recipe, train, self._run.checkpoints, self._job.steps_per_epoch)


def _uncompiled(setup: Setup, train: TrainState, batches: HostBatch) -> TrainState:
    """What `compiled(train_steps)` computes, one operation after another; compiled or not, it is given NumPy arrays."""
    return train_steps(setup, train, jax.tree.map(jnp.asarray, batches))


def _opening(job: Job, run: Run, first: int) -> str:
    """The line that opens a run: what is trained on what, and where it goes."""
    recipe = job.recipe
    parameters = count_parameters(job.start.model)
    height, width = job.image_size
    held_out = f", {len(job.validation_rows):,} held out" if job.recipe.validation not in (0, "test") else ""
    return (
        f"{recipe.model} ({parameters:,} parameters) on {job.info.name}: {len(job.train_rows):,} training images"
        f"{held_out}, {len(job.test.labels):,} for the test, {height}x{width}x{job.info.channels}, "
        f"{len(job.info.class_names)} classes; {f'from step {first:,} of' if first else 'into'} {run.folder}"
    )


def _save(job: Job, run: Run, train: TrainState) -> None:
    """Writes the trained classifier to the run's `model/`, which also marks the run as finished."""
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
            architecture=tuple(keywords("architecture", job.recipe.architecture).items()),
        ),
    )
