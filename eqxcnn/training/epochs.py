"""The epoch loop, for one run or for several seeds in one program."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ..recipe import Recipe
from ..runs.progress import TrainingProgress
from ..runtime.compile import async_jit
from ..runtime.devices import Devices
from ..runtime.interrupts import Interrupted, Interrupts
from ..runtime.profile import Profiler
from .job import HostBatch, Job, count_steps
from .runner import EpochRunner
from .setup import Setup
from .state import TrainState
from .step import train_steps

__all__ = ["EpochLoop", "Program", "SingleRun", "compile_steps"]

_ONE_DEVICE = Devices()
#: A request for a checkpoint, after which training continues. Any other request is the number of a signal, which ends
#: training.
_CHECKPOINT = 0


@runtime_checkable
class Program(Protocol):
    """The steps of one run, or of several runs whose train states are stacked.

    - `job`: the job. For several runs, it is the job of the first run; the other jobs differ only in their seeds.
    """

    job: Job

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """Yields the batches of an epoch from its step `first` on; each item has the batches of one call of `run`."""
        ...

    def count_steps(self, batches: Any) -> int:
        """Returns the number of steps in the batches of one call."""
        ...

    def run(self, train: TrainState, batches: Any) -> TrainState:
        """Runs the steps of one call."""
        ...

    def split(self, train: TrainState) -> list[TrainState]:
        """Returns the train state of each run."""
        ...

    def join(self, trains: Sequence[TrainState]) -> TrainState:
        """Undoes `split`."""
        ...


class SingleRun:
    """The program of one run."""

    def __init__(self, job: Job) -> None:
        self.job, self._steps = job, compile_steps(job.recipe, devices=job.devices)

    def batches(self, epoch: int, first: int) -> Iterator[HostBatch]:
        """Yields the batches of an epoch from its step `first` on; each item has the batches of one call of `run`."""
        return self.job.batches(epoch, first)

    def count_steps(self, batches: HostBatch) -> int:
        """Returns the number of steps in the batches of one call."""
        return count_steps(batches)

    def run(self, train: TrainState, batches: HostBatch) -> TrainState:
        """Runs the steps of one call."""
        return self._steps(self.job.setup, train, self.job.devices.split(batches, axis=1))

    def split(self, train: TrainState) -> list[TrainState]:
        """Returns the train state in a list."""
        return [train]

    def join(self, trains: Sequence[TrainState]) -> TrainState:
        """Returns the single train state from the list."""
        (train,) = trains
        return train


class EpochLoop:
    """Runs the epochs one after another, and saves checkpoints when they are due and after a signal.

    **Arguments:**

    - `program`: the steps to run.
    - `runners`: one `EpochRunner` per run of the program.
    - `interrupts`: signals received so far.
    - `progress`, `profiler`: show the progress, and trace some steps.
    - `folder`: the folder to resume after a signal; see `Interrupted`.
    """

    def __init__(
        self,
        program: Program,
        runners: Sequence[EpochRunner],
        interrupts: Interrupts,
        progress: TrainingProgress,
        profiler: Profiler,
        folder: Path,
    ) -> None:
        self._program, self._runners = program, runners
        self._interrupts, self._progress, self._profiler = interrupts, progress, profiler
        self._folder = folder
        self._requested = set[int]()

    def run(self, train: TrainState, first_step: int) -> list[TrainState]:
        """Trains from step `first_step` to the end, or until early stopping; returns the state of each run.

        **Raises:** `Interrupted` after a signal, once every run has a checkpoint.
        """
        job = self._program.job
        for epoch in range(job.epochs_after(first_step), job.epochs):
            # Only a single run can stop early: seeds that share a program would stop at different epochs.
            if len(self._runners) == 1 and self._runners[0].should_stop():
                break
            train = self._run_epoch(epoch, max(first_step - epoch * job.steps_per_epoch, 0), train)
        return self._program.split(train)

    def _run_epoch(self, epoch: int, first: int, train: TrainState) -> TrainState:
        program, job, started = self._program, self._program.job, monotonic()
        steps = job.steps_after(epoch + 1) - epoch * job.steps_per_epoch
        done = first
        for batches in program.batches(epoch, first):
            self._profiler.before_call()
            train = program.run(train, batches)
            count = program.count_steps(batches)
            self._profiler.after_call(train.step, count)
            done += count
            self._progress.step(epoch * job.steps_per_epoch + done, train.sums.means)
            self._end_call(train)
            if done < steps:
                self._save_if_due(train)
        jax.block_until_ready(train.sums)
        seconds, images = monotonic() - started, (done - first) * job.recipe.batch_size
        pairs = zip(self._runners, program.split(train), strict=True)
        train = program.join([runner.end_epoch(epoch, each, images, seconds) for runner, each in pairs])
        self._save_if_due(train)
        return train

    def _end_call(self, train: TrainState) -> None:
        """Runs `on_step` of the callbacks that override it, if there are any."""
        if any(runner.watches_steps for runner in self._runners):
            for runner, each in zip(self._runners, self._program.split(train), strict=True):
                runner.end_call(each)

    def _save_if_due(self, train: TrainState) -> None:
        """Saves a checkpoint of each run if one is due or a signal was received; a signal then ends the training."""
        peers, signal = self._program.job.peers, self._interrupts.received
        # The clocks of several processes differ, so process 0 decides when a checkpoint is due.
        is_due = peers.is_first and any(runner.is_checkpoint_due() for runner in self._runners)
        reason = signal if signal is not None else _CHECKPOINT if is_due else None
        if reason is not None and reason not in self._requested:
            peers.request(reason)
            self._requested.add(reason)
        reasons = peers.poll()
        self._requested.difference_update(reasons)
        if reasons:
            for runner, each in zip(self._runners, self._program.split(train), strict=True):
                runner.save(each)
        if signals := [each for each in reasons if each != _CHECKPOINT]:
            # A launcher kills all other processes when one process ends, so each process waits until all have saved.
            peers.gather(None)
            raise Interrupted(signals[0], self._folder)


def compile_steps(
    recipe: Recipe, steps: Callable[..., TrainState] = train_steps, devices: Devices = _ONE_DEVICE
) -> Callable[..., TrainState]:
    """Compiles `steps` with the recipe's `deterministic`; if its `jit` is false, returns plain `train_steps` instead.

    **Arguments:**

    - `devices`: the devices on which the resulting train state stays.
    """
    if not recipe.jit:
        return _run_uncompiled
    if devices.count == 1:
        return async_jit(steps, donate=True, deterministic=recipe.deterministic)

    def run(setup: Setup, train: TrainState, batches: Any) -> TrainState:
        return devices.constrain_state(steps(setup, train, batches))

    return async_jit(run, donate=True, deterministic=recipe.deterministic)


def _run_uncompiled(setup: Setup, train: TrainState, batches: HostBatch) -> TrainState:
    """Runs `train_steps` operation by operation; accepts NumPy arrays, like the compiled function."""
    return train_steps(setup, train, jax.tree.map(jnp.asarray, batches))
