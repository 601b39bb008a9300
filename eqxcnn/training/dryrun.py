"""What a recipe's steps take, before hours go into them: compiled, run twice, nothing written."""

import warnings
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import jax

from ..cost import count_parameters
from ..errors import InputError
from ..recipe.recipe import Recipe
from ..runtime.memory import keep_freed_memory
from .epochs import compiled_steps
from .job import prepare


@dataclass(frozen=True)
class DryRun:
    """What `dry_run` found.

    - `parameters`: of the model.
    - `steps`: of the whole run; `steps_per_call` of them are one call.
    - `compile_seconds`: for the steps alone; a run compiles its evaluation as well.
    - `step_seconds`: of a step in the second call.
    - `memory`: bytes on the device during a call by the compiler's own account: training images, weights and what the
      optimizer keeps of them, and what lies between forward and backward.
    - `device`: what it ran on.
    """

    parameters: int
    steps: int
    steps_per_call: int
    compile_seconds: float
    step_seconds: float
    memory: int
    device: str

    def __str__(self) -> str:
        whole = timedelta(seconds=round(self.steps * self.step_seconds))
        return (
            f"{self.parameters:,} parameters; compiled in {self.compile_seconds:.1f} s; a step takes "
            f"{1000 * self.step_seconds:,.2f} ms on {self.device}, all {self.steps:,} of them {whole}; "
            f"{self.memory / 2**20:,.0f} MiB of memory"
        )


def dry_run(recipe: Recipe) -> DryRun:
    """Compiles the recipe's steps and runs two calls of them on its own data.

    **Raises:** `InputError` for a recipe or data that cannot work.
    """
    if not recipe.jit:
        raise InputError("a dry run looks at compiled steps: leave `jit` as it is")
    keep_freed_memory()
    job = prepare(recipe)
    calls = job.batches(0, 0)
    first = next(calls)
    # An epoch may be a single call.
    second = next(calls, first)
    started = monotonic()
    with warnings.catch_warnings():
        # The rows of a batch are given away as well, and are too small to be of use.
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        steps: Any = compiled_steps(job.recipe)
        steps = steps.lower(job.setup, job.start, first).compile()
    compiled = monotonic()
    train = jax.block_until_ready(steps(job.setup, job.start, first))
    ran = monotonic()
    jax.block_until_ready(steps(job.setup, train, second))
    stats = steps.compiled.memory_analysis()
    sizes = (stats.argument_size_in_bytes, stats.output_size_in_bytes, stats.temp_size_in_bytes)
    return DryRun(
        parameters=count_parameters(job.start.model),
        steps=job.steps,
        steps_per_call=job.steps_per_call,
        compile_seconds=compiled - started,
        step_seconds=(monotonic() - ran) / jax.tree.leaves(second)[0].shape[0],
        memory=sum(sizes) - stats.alias_size_in_bytes,
        device=jax.devices()[0].device_kind,
    )
