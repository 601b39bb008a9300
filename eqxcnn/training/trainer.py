"""A run from its recipe to its result: `fit`, and `resume` for one that was stopped."""

from pathlib import Path
from time import monotonic

from ..cost import count_parameters
from ..recipe.recipe import Recipe
from ..runs.folder import Run
from ..runs.logs.backends import check_logs, open_logs
from ..runs.progress import TrainingProgress, log_line
from ..runs.stopping import should_stop
from ..runtime.interrupts import Interrupts
from ..runtime.memory import keep_freed_memory
from ..runtime.profile import Profiler
from .epochs import EpochRunner, Result, compiled_steps
from .job import Job, prepare
from .step import TrainState


def fit(recipe: Recipe, *, runs: Path | str = "runs", name: str | None = None) -> Result:
    """Trains a recipe from its start into a new folder under `runs`, called `name` or after model, data and time.

    **Raises:** `InputError` for a recipe or data that cannot work; `Interrupted` after Ctrl-C or SIGTERM, having saved.
    """
    started = monotonic()
    check_logs(recipe.log)
    keep_freed_memory()
    job = prepare(recipe)
    with Run.create(Path(runs), job.recipe, job.info.name, name) as run:
        return _train(job, run, job.start, started)


def resume(folder: Path | str) -> Result:
    """Goes on with a run that was stopped, from its newest intact checkpoint, to the result it would have had.

    **Raises:** as `fit`; and `InputError` when `folder` is no run, is finished, or has no intact checkpoint.
    """
    started = monotonic()
    keep_freed_memory()
    with Run.open(Path(folder)) as run:
        job = prepare(run.recipe, starts=not run.checkpoints.steps())
        restored = run.checkpoints.restore_latest(job.start, notify=log_line)
        return _train(job, run, job.start if restored is None else restored[1], started)


def _train(job: Job, run: Run, train: TrainState, started: float) -> Result:
    """Runs what remains of a job and leaves the folder finished; `started` is when it was asked for."""
    recipe, first = job.recipe, int(train.step)
    done = job.epochs_after(first)
    run.rewind(done)
    steps = compiled_steps(recipe)
    with (
        open_logs(recipe.log, run) as logs,
        Interrupts() as interrupts,
        Profiler(run.folder / "profile", recipe.profile) as profiler,
        TrainingProgress(job.steps, job.steps_per_epoch, recipe.batch_size, first) as progress,
    ):
        logs.start(job)
        log_line(run_header(job, run, first), progress.console)
        epochs = EpochRunner(job, run, logs, interrupts, progress)
        for epoch in range(done, job.epochs):
            if should_stop(recipe, run.metrics):
                words = f"{recipe.monitor} has not become better for {recipe.early_stop_epochs} epochs: stopping"
                log_line(words, progress.console)
                break
            train = epochs.train(epoch, train, steps, profiler)
        return epochs.finish(train, started, first)


def run_header(job: Job, run: Run, first: int) -> str:
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
