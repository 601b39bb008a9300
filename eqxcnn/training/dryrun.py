"""A dry run: measures the time and memory of a recipe's steps in two calls, and writes nothing."""

import warnings
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import jax

from ..cost import count_parameters
from ..errors import InputError
from ..recipe import Recipe
from ..runtime.memory import keep_freed_memory
from ..runtime.promotion import standard_promotion
from .epochs import compile_steps
from .evaluate import Evaluator, choose_batch_size
from .job import Job, count_steps
from .parts import make_parts
from .preparation import prepare
from .state import TrainState

__all__ = ["DryRun", "dry_run"]


@dataclass(frozen=True)
class DryRun:
    """The result of `dry_run`.

    - `parameters`: number of the model's parameters.
    - `steps`, `steps_per_call`: number of steps of the whole run, and of one call.
    - `compile_seconds`: time to compile the steps; a run also compiles the evaluation, which is not included.
    - `step_seconds`: time per step, in the second call.
    - `memory`: bytes on the device during a training call, as the compiler reports them: training images, weights,
      optimizer state and activations.
    - `eval_memory`: bytes on the device during an evaluation call, as the compiler reports them.
    - `device`: kind of the device.
    """

    parameters: int
    steps: int
    steps_per_call: int
    compile_seconds: float
    step_seconds: float
    memory: int
    eval_memory: int
    device: str

    def __str__(self) -> str:
        whole = timedelta(seconds=round(self.steps * self.step_seconds))
        return (
            f"{self.parameters:,} parameters; compiled in {self.compile_seconds:.1f} s; a step takes "
            f"{1000 * self.step_seconds:,.2f} ms on {self.device}, and all {self.steps:,} steps take {whole}; "
            f"{self.memory / 2**20:,.0f} MiB of memory in training, {self.eval_memory / 2**20:,.0f} MiB in evaluation"
        )


@standard_promotion()
def dry_run(recipe: Recipe, **parts: Any) -> DryRun:
    """Compiles a recipe's steps and evaluation, and calls the compiled steps twice on the recipe's data.

    **Arguments:**

    - `parts`: your own parts of the run, as for `fit`.

    **Raises:** `InputError` for a recipe without `jit`, and for a recipe or data that cannot be used for training.
    """
    if not recipe.jit:
        raise InputError("a dry run measures compiled steps: leave `jit` on")
    keep_freed_memory()
    job = prepare(recipe, make_parts(**parts))
    train = job.make_start()
    calls = job.batches(0, 0)
    first = next(calls)
    # If an epoch has only one call, the second call uses the batches of the first again.
    first, second = (job.devices.split(each, axis=1) for each in (first, next(calls, first)))
    started = monotonic()
    with warnings.catch_warnings():
        # The row numbers of a batch are donated too, but their memory is too small for any result.
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        steps: Any = compile_steps(job.recipe, devices=job.devices)
        steps = steps.lower(job.setup, train, first).compile()
    compiled = monotonic()
    train = jax.block_until_ready(steps(job.setup, train, first))
    ran = monotonic()
    train = jax.block_until_ready(steps(job.setup, train, second))
    return DryRun(
        parameters=count_parameters(job.template.model),
        steps=job.steps,
        steps_per_call=job.steps_per_call,
        compile_seconds=compiled - started,
        step_seconds=(monotonic() - ran) / count_steps(second),
        memory=_total_memory(steps.compiled.memory_analysis()),
        eval_memory=_eval_memory(job, train),
        device=jax.devices()[0].device_kind,
    )


def _eval_memory(job: Job, train: TrainState) -> int:
    """Returns the memory of an evaluation on the larger of the test split and the validation images."""
    recipe, setup = job.recipe, job.setup
    size = choose_batch_size(recipe.eval_batch_size, job.image_size)
    evaluator = Evaluator(
        setup.mean, setup.std, len(job.info.class_names), size, recipe.test_views, devices=job.devices
    )
    shape = (*job.image_size, job.info.channels)
    count = max(len(job.splits.test.labels), len(job.splits.validation_rows))
    stats = evaluator.memory(*train.averaged, shape, count)
    return _total_memory(stats)


def _total_memory(stats: Any) -> int:
    sizes = (stats.argument_size_in_bytes, stats.output_size_in_bytes, stats.temp_size_in_bytes)
    return sum(sizes) - stats.alias_size_in_bytes
