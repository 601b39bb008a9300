"""Training: `fit` runs a recipe from its start, `resume` continues a stopped run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic

from ..cost import count_parameters
from ..metrics import Metric
from ..optim.optimizers import OwnOptimizer
from ..recipe import Recipe
from ..runs.folder import Run
from ..runs.logs import check_logs, open_logs
from ..runs.progress import TrainingProgress, log_line
from ..runs.shared import check_same_data, check_same_recipe, create_run, open_run
from ..runtime.interrupts import Interrupts
from ..runtime.memory import keep_freed_memory
from ..runtime.processes import current_peers
from ..runtime.profile import Profiler
from ..runtime.promotion import standard_promotion
from ..types import Augment, ModelState, Network
from .callbacks import Callback, RunView
from .epochs import EpochLoop, SingleRun
from .job import Job
from .parts import OwnData, OwnLoss, make_parts
from .preparation import prepare
from .result import Result
from .runner import EpochRunner
from .state import TrainState

__all__ = ["fit", "resume", "run_header"]


@standard_promotion()
def fit(
    recipe: Recipe,
    *,
    model: Network | tuple[Network, ModelState] | None = None,
    data: OwnData | None = None,
    optimizer: OwnOptimizer | None = None,
    loss: OwnLoss | None = None,
    augment: Augment | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback | Callable[[RunView], object]] = (),
    runs: Path | str = "runs",
    name: str | None = None,
) -> Result:
    """Trains as a recipe says, and writes a new run folder. Each part that you pass replaces that of the recipe.

    **Arguments:**

    - `model`: an Equinox module that maps one image `[h w c]` to scores, as `net(image)`, `net(image, key=key)` or
      `net(image, state, key=key)`; pass a network with a state as a pair `(net, state)`. Training works on a copy, so
      your network stays usable.
    - `data`: the result of `eqxcnn.data.from_arrays` or `from_dataset`; or the input of these functions, which is a
      pair of arrays `(images, labels)`, a `datasets.Dataset` or a `DatasetDict`.
    - `optimizer`: an optax transformation, which includes its learning rate; or a function that takes the recipe's
      schedule and returns such a transformation. The recipe's clipping, accumulation, frozen parts and learning-rate
      factors still apply.
    - `loss`: a function of logits `[b classes]` and labels `[b]` that returns the loss of each image `[b]`, or
      the mean loss; mixup needs the loss of each image.
    - `augment`: a function of one image `[h w c]` in [0, 1] and a key that returns an image of the same shape.
    - `metrics`: a dictionary of further metrics for validation and test, by name; see `eqxcnn.metrics`.
    - `callbacks`: objects that watch the run (see `Callback`), or functions that are called after each epoch.
    - `runs`: folder in which the run's folder is made.
    - `name`: name of the run's folder; by default `<model>-<data>-<timestamp>`.

    **Raises:** `InputError` for a recipe, part or data that cannot be trained; `Interrupted` after Ctrl-C or SIGTERM,
    once a checkpoint is saved.
    """
    started = monotonic()
    check_logs(recipe.log)
    keep_freed_memory()
    parts = make_parts(model, data, optimizer, loss, augment, metrics, callbacks)
    peers = current_peers()
    with peers.guard():
        check_same_recipe(peers, recipe, parts.record())
        job = prepare(recipe, parts)
        check_same_data(peers, job.info.fingerprint)
        names = {"data_name": job.info.name, "name": name, "model_name": job.short_model_name}
        details = {"fingerprint": job.info.fingerprint, "parts": parts.record(), **names}
        with create_run(peers, Path(runs), job.recipe, **details) as run:
            return _train(job, run, job.make_start(), started)


@standard_promotion()
def resume(
    folder: Path | str,
    *,
    model: Network | tuple[Network, ModelState] | None = None,
    data: OwnData | None = None,
    optimizer: OwnOptimizer | None = None,
    loss: OwnLoss | None = None,
    augment: Augment | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback | Callable[[RunView], object]] = (),
) -> Result:
    """Continues a stopped run from its newest intact checkpoint; the result equals the result of an uninterrupted run.

    Pass the same parts as when the run was started; callbacks may differ.

    **Arguments:** see `fit`.

    **Raises:** the same exceptions as `fit`. Also `InputError` if `folder` is not a run's folder, if the run is
    finished, if all its checkpoints are damaged, if the data have changed since the run started, or if a part is
    missing or differs from the part with which the run was started.
    """
    started = monotonic()
    keep_freed_memory()
    parts = make_parts(model, data, optimizer, loss, augment, metrics, callbacks)
    peers = current_peers()
    with peers.guard(), open_run(peers, Path(folder)) as run:
        is_resumed = bool(run.checkpoints.steps())
        parts.check_same(run.read_parts(), starts_anew=not is_resumed)
        job = prepare(run.recipe, parts, is_resumed=is_resumed)
        check_same_data(peers, job.info.fingerprint)
        run.check_data(job.info.fingerprint)
        restored = run.checkpoints.restore_latest(job.template, notify=log_line)
        train = job.make_start() if restored is None else job.devices.place_state(restored[1])
        return _train(job, run, train, started)


def _train(job: Job, run: Run, train: TrainState, started: float) -> Result:
    """Trains the rest of a job, and completes the run's folder.

    **Arguments:**

    - `started`: time at which `fit` or `resume` was called.
    """
    recipe, first_step = job.recipe, int(train.step)
    run.rewind(job.epochs_after(first_step))
    with (
        open_logs(recipe.log if job.peers.is_first else (), run) as logs,
        Interrupts() as interrupts,
        Profiler(run.folder / "profile", recipe.profile if job.peers.is_first else 0) as profiler,
        TrainingProgress(job.steps, job.steps_per_epoch, recipe.batch_size, first_step) as progress,
        closing(job),
    ):
        runner = EpochRunner(job, run, logs, progress)
        runner.start(train)
        log_line(run_header(job, run, first_step), progress.console)
        loop = EpochLoop(SingleRun(job), [runner], interrupts, progress, profiler, run.folder)
        (train,) = loop.run(train, first_step)
        return runner.finish(train, started, first_step)


def run_header(job: Job, run: Run, first_step: int) -> str:
    """Returns the first line that a run prints: the model, the data, and the folder."""
    parameters = count_parameters(job.template.model)
    height, width = job.image_size
    splits = job.splits
    held_out = f", {len(splits.validation_rows):,} held out" if job.recipe.validation not in (0, "test") else ""
    return (
        f"{job.model_name} ({parameters:,} parameters) on {job.info.name}: {len(splits.train_rows):,} training images"
        f"{held_out}, {len(splits.test.labels):,} test images, {height}x{width}x{job.info.channels}, "
        f"{len(job.info.class_names)} classes; {f'from step {first_step:,} of' if first_step else 'into'} {run.folder}"
    )
