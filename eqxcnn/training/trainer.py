"""Training: `fit` runs a recipe from its start, `resume` continues a stopped run."""

from pathlib import Path
from time import monotonic

from ..cost import count_parameters
from ..recipe import Recipe
from ..runs.folder import Run
from ..runs.logs import check_logs, open_logs
from ..runs.progress import TrainingProgress, log_line
from ..runtime.interrupts import Interrupts
from ..runtime.memory import keep_freed_memory
from ..runtime.profile import Profiler
from ..runtime.promotion import standard_promotion
from .epochs import EpochLoop, SingleRun
from .job import Job
from .preparation import prepare
from .runner import EpochRunner, Result
from .state import TrainState


@standard_promotion()
def fit(recipe: Recipe, *, runs: Path | str = "runs", name: str | None = None) -> Result:
    """Trains a recipe into a new folder.

    **Arguments:**

    - `runs`: folder in which the run's folder is made.
    - `name`: of the run's folder; by default `<model>-<data>-<timestamp>`.

    **Raises:** `InputError` for a recipe or data that cannot work; `Interrupted` after Ctrl-C or SIGTERM, once a
    checkpoint is saved.
    """
    started = monotonic()
    check_logs(recipe.log)
    keep_freed_memory()
    job = prepare(recipe)
    with Run.create(Path(runs), job.recipe, job.info.name, name, job.info.fingerprint) as run:
        return _train(job, run, job.make_start(), started)


@standard_promotion()
def resume(folder: Path | str) -> Result:
    """Continues a stopped run from its newest intact checkpoint, to the result it would have had.

    **Raises:** as `fit`; and `InputError` if `folder` is not a run's, is finished, or has no intact checkpoint, or if
    the data have changed since it started.
    """
    started = monotonic()
    keep_freed_memory()
    with Run.open(Path(folder)) as run:
        job = prepare(run.recipe, is_resumed=bool(run.checkpoints.steps()))
        run.check_data(job.info.fingerprint)
        restored = run.checkpoints.restore_latest(job.template, notify=log_line)
        return _train(job, run, job.make_start() if restored is None else restored[1], started)


def _train(job: Job, run: Run, train: TrainState, started: float) -> Result:
    """Runs the rest of a job and leaves its folder finished; `started` is the time of the call."""
    recipe, first_step = job.recipe, int(train.step)
    run.rewind(job.epochs_after(first_step))
    with (
        open_logs(recipe.log, run) as logs,
        Interrupts() as interrupts,
        Profiler(run.folder / "profile", recipe.profile) as profiler,
        TrainingProgress(job.steps, job.steps_per_epoch, recipe.batch_size, first_step) as progress,
    ):
        runner = EpochRunner(job, run, logs, progress)
        runner.start()
        log_line(run_header(job, run, first_step), progress.console)
        loop = EpochLoop(SingleRun(job), [runner], interrupts, progress, profiler, run.folder)
        (train,) = loop.run(train, first_step)
        return runner.finish(train, started, first_step)


def run_header(job: Job, run: Run, first_step: int) -> str:
    """Returns the first line of a run: the model, the data, and the folder."""
    recipe = job.recipe
    parameters = count_parameters(job.template.model)
    height, width = job.image_size
    held_out = f", {len(job.validation_rows):,} held out" if job.recipe.validation not in (0, "test") else ""
    return (
        f"{recipe.model} ({parameters:,} parameters) on {job.info.name}: {len(job.train_rows):,} training images"
        f"{held_out}, {len(job.test.labels):,} test images, {height}x{width}x{job.info.channels}, "
        f"{len(job.info.class_names)} classes; {f'from step {first_step:,} of' if first_step else 'into'} {run.folder}"
    )
