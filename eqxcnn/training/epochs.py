"""One epoch after another: steps, and what is logged, saved and shown between them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp

from ..inference import ImageClassifier, save
from ..recipe.recipe import Recipe
from ..recipe.settings import parse_arguments
from ..runs.folder import Run
from ..runs.logs.backends import Logs
from ..runs.progress import TrainingProgress, log_line
from ..runs.stopping import best_epochs, check_finite
from ..runtime.compile import async_jit
from ..runtime.interrupts import Interrupted, Interrupts
from ..runtime.profile import Profiler
from .batch_stats import recompute_batch_stats
from .evaluate import Evaluator, Scores
from .job import HostBatch, Job
from .step import Setup, Sums, TrainState, train_steps


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


class EpochRunner:
    """What the epochs of one run share.

    **Arguments:**

    - `job`, `run`: what is trained, and where it goes.
    - `logs`: where rows go besides the run's own file.
    - `interrupts`, `progress`: what stops it, and who watches.
    - `label`: what its lines begin with, where others train beside it.
    """

    def __init__(
        self, job: Job, run: Run, logs: Logs, interrupts: Interrupts, progress: TrainingProgress, label: str = ""
    ) -> None:
        self._job, self._run, self._logs = job, run, logs
        self._interrupts, self._progress, self._label = interrupts, progress, label
        self._make_evaluator = partial(Evaluator, job.setup.mean, job.setup.std, len(job.info.class_names))
        self._evaluator = self._make_evaluator()
        self._saved = monotonic()

    def train(self, epoch: int, train: TrainState, steps: Callable[..., TrainState], profiler: Profiler) -> TrainState:
        """One pass by compiled `steps`, or what a checkpoint left of it; logs its row and saves when it is time."""
        job, started = self._job, monotonic()
        first = int(train.step) - epoch * job.steps_per_epoch
        last = min(job.steps_per_epoch, job.steps - epoch * job.steps_per_epoch)
        done = first
        for batches in job.batches(epoch, first):
            profiler.before_call()
            train = steps(job.setup, train, batches)
            count = jax.tree.leaves(batches)[0].shape[0]
            profiler.after_call(train.step, count)
            done += count
            self._progress.step(epoch * job.steps_per_epoch + done, train)
            if done < last:
                self._save_in_time(train)
        jax.block_until_ready(train.sums)
        train = self.end(epoch, train, (done - first) * job.recipe.batch_size, monotonic() - started)
        self._save_in_time(train)
        return train

    def end(self, epoch: int, train: TrainState, images: int, seconds: float) -> TrainState:
        """Logs the row of an epoch that saw so many images in so many seconds; the state for the next one."""
        recipe = self._job.recipe
        row = self._row(epoch, train, images, seconds)
        self._run.log(row)
        self._logs.row(row)
        self._progress.epoch(row, self._label)
        if many := max(recipe.best_checkpoints, recipe.keep == "best"):
            best = best_epochs(recipe, self._run.metrics)[:many]
            if epoch + 1 in best:
                steps = [self._job.steps_after(each) for each in best]
                self._run.best.save(int(train.step), train, others=steps)
        return replace(train, sums=Sums.zero())

    def finish(self, train: TrainState, started: float, first: int) -> Result:
        """Chooses the weights, tests them, and writes them to the run's `model/`, which marks the run as finished.

        `started` is when the run was asked for, `first` the step that it went on from.
        """
        job, recipe = self._job, self._job.recipe
        if recipe.keep == "best":
            train = self._best(train)
        if recipe.average == "swa":
            train = recompute_batch_stats(job, train)
        # The same one where it can be: each is compiled by itself.
        tester = self._evaluator if recipe.test_views == "one" else self._make_evaluator(views=recipe.test_views)
        test = tester(*train.averaged, job.test.images, job.test.labels)
        last = {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_count": test.count}
        # From the call to here: decoding, compiling, training and evaluation. A resumed run tells its own part only.
        last |= {"from_step": first, "wall_seconds": round(monotonic() - started, 3)}
        self._run.log(last)
        self._logs.row(last)
        self._logs.confusion(test.confusion, job.info.class_names)
        _save(job, self._run, train)
        return Result(self._run.folder, test, self._run.metrics)

    def _best(self, train: TrainState) -> TrainState:
        """The train state of the best epoch, or the last one where no epoch had a metric."""
        recipe = self._job.recipe
        best = [self._job.steps_after(each) for each in best_epochs(recipe, self._run.metrics)]
        restored = self._run.best.restore_latest(self._job.start, notify=log_line, steps=best[::-1])
        if restored is None:
            return train
        epoch = self._job.epochs_after(restored[0])
        log_line(f"epoch {epoch} had the best {recipe.monitor}: its weights are kept", self._progress.console)
        return restored[1]

    def is_time(self) -> bool:
        """Whether the last save is long enough ago, or somebody wants the run to stop."""
        late = monotonic() - self._saved >= self._job.recipe.checkpoint_seconds
        return late or self._interrupts.received is not None

    def save(self, train: TrainState) -> None:
        """Saves a checkpoint, of a state that is worth it."""
        self._check(train)
        self._run.checkpoints.save(int(train.step), train)
        self._saved = monotonic()

    def _save_in_time(self, train: TrainState) -> None:
        stopped = self._interrupts.received
        if self.is_time():
            self.save(train)
        if stopped is not None:
            raise Interrupted(stopped, self._run.folder)

    def _row(self, epoch: int, train: TrainState, images: int, seconds: float) -> dict[str, Any]:
        """The epoch's metrics."""
        self._check(train)
        count = int(train.sums.count)
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


def compiled_steps(recipe: Recipe, steps: Callable[..., TrainState] = train_steps) -> Callable[..., TrainState]:
    """`train_steps` as the recipe has it compiled, or not."""
    if recipe.jit:
        return async_jit(steps, donate=True, deterministic=recipe.deterministic)
    return _uncompiled


def _uncompiled(setup: Setup, train: TrainState, batches: HostBatch) -> TrainState:
    """Runs `train_steps` without compiling it; takes NumPy arrays, as the compiled function does."""
    return train_steps(setup, train, jax.tree.map(jnp.asarray, batches))


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
            architecture=tuple(parse_arguments("architecture", job.recipe.architecture).items()),
        ),
    )
