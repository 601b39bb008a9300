"""A learning-rate range test: short training with a rising learning rate, to choose a recipe's learning rate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Annotated, Any

import equinox as eqx
import jax
import numpy as np
import optax

from ..errors import InputError
from ..ranges import Range, check_arguments
from ..recipe import Recipe
from ..runtime.memory import keep_freed_memory
from ..runtime.promotion import standard_promotion
from .builders import build_optimizer
from .epochs import compile_steps
from .job import HostBatch, Job
from .parts import make_parts
from .preparation import prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

__all__ = ["LearningRateCurve", "find_learning_rate"]

#: Weight of past losses in the smoothed loss, and the multiple of the smallest smoothed loss at which the test ends.
_SMOOTHING, _DIVERGENCE = 0.98, 4.0


@dataclass(frozen=True)
class LearningRateCurve:
    """The result of `find_learning_rate`.

    - `rates`: learning rate of each step.
    - `losses`: training loss after each step, smoothed by a bias-corrected exponential average.
    - `suggestion`: the rate at which the loss falls most steeply, a good first choice.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def plot(self) -> Figure:
        """Returns a Matplotlib figure of the loss by learning rate, with the suggestion marked."""
        from ..plots.learning_curves import loss_by_rate

        return loss_by_rate(self.rates, self.losses, self.suggestion)


@standard_promotion()
@check_arguments
def find_learning_rate(
    recipe: Recipe,
    *,
    low: Annotated[float, Range(1e-12, 1e3)] = 1e-6,
    high: Annotated[float, Range(1e-12, 1e3)] = 10.0,
    steps: Annotated[int, Range(10, 100_000)] = 100,
    **parts: Any,
) -> LearningRateCurve:
    """Trains for a few steps while the learning rate rises exponentially (Smith 2017, section 3.3, arXiv:1506.01186).

    The recipe's `learning_rate` and `schedule` are not used, and nothing is written. The test ends early when the loss
    exceeds four times its minimum, or is not finite.

    **Arguments:**

    - `low`, `high`: the learning rates of the first and the last step.
    - `steps`: number of steps.
    - `parts`: your own parts of the run, as for `fit`; an `optimizer` must be a function of the schedule.

    **Raises:** `InputError` if `low` is not below `high`, or if the recipe cannot be trained on the data.
    """
    if low >= high:
        raise InputError(f"`low` (={low:g}) must be below `high` (={high:g})")
    if isinstance(parts.get("optimizer"), optax.GradientTransformation):
        raise InputError(
            "`optimizer` has a fixed learning rate: give a function that takes a schedule and returns a transformation"
        )
    if recipe.gradients == "by_hand":
        raise InputError("`gradients` (='by_hand') has a fixed learning rate: set it to autodiff for this test")
    keep_freed_memory()
    own = make_parts(**parts)
    job = prepare(recipe.replace(accumulate_steps=1, steps_per_call=1), own)
    rates = tuple(low * (high / low) ** (step / (steps - 1)) for step in range(steps))
    schedule = optax.exponential_decay(low, steps - 1, high / low)
    optimizer = build_optimizer(job.recipe, job.steps, job.steps_per_epoch, own.optimizer, schedule)
    losses = list(_smooth(islice(_run(replace(job, setup=replace(job.setup, optimizer=optimizer))), steps)))
    return LearningRateCurve(rates[: len(losses)], tuple(losses), _steepest(rates, losses))


def _run(job: Job) -> Iterator[float]:
    """Yields the loss of each step, without end."""
    train, run_steps = job.make_start(), compile_steps(job.recipe, devices=job.devices)
    opt_state = job.setup.optimizer.init(eqx.filter(train.model, eqx.is_inexact_array))
    train = replace(train, opt_state=job.devices.place_state(opt_state))
    total = 0.0
    for batch in _batches(job):
        train = run_steps(job.setup, train, job.devices.split(batch, axis=1))
        # If the recipe skips failed steps, their loss is not in the sums.
        failed, summed = jax.device_get((train.sums.failed, train.sums.loss))
        yield math.nan if failed else (float(summed) - total) / job.recipe.batch_size
        total = float(summed)


def _batches(job: Job) -> Iterator[HostBatch]:
    for epoch in count():
        yield from job.all_batches(epoch)


def _smooth(losses: Iterator[float]) -> Iterator[float]:
    """Yields smoothed losses until a loss is not finite or exceeds `_DIVERGENCE` times the smallest loss."""
    average, best = 0.0, math.inf
    for number, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed = average / (1 - _SMOOTHING**number)
        if not math.isfinite(smoothed) or smoothed > _DIVERGENCE * best:
            return
        best = min(best, smoothed)
        yield smoothed


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the rate at which the loss, as a function of the rate's logarithm, falls most steeply.

    **Raises:** `InputError` if the loss never falls.
    """
    if len(losses) < 3:
        raise InputError("the loss is not finite at the lowest learning rate: give a smaller `low`")
    # Only the losses up to the minimum are used, since the loss may rise and fall again later.
    end = max(int(np.argmin(losses)) + 1, 2)
    slopes = np.gradient(np.asarray(losses[:end]), np.log(rates[:end]))
    if slopes.min() >= 0:
        raise InputError("the loss does not fall at any of the learning rates: give a smaller `low` or more `steps`")
    return rates[int(np.argmin(slopes))]
