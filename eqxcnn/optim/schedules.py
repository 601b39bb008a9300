"""Learning-rate schedules: optax schedules over the steps of a run, after an optional warm-up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optax

__all__ = ["ScheduleShape", "make_schedule", "schedule_shape"]

#: Default `(warmup_fraction, initial_lr_factor, final_lr_factor)` of each schedule.
_SHAPES = {
    # Smith and Topin 2017: rises from 1/25 of the peak, then falls to 1/300 of that initial value.
    "one_cycle": (0.25, 1 / 25, 1 / 7500),
    "cosine": (0.0, 0.0, 0.0),
    "linear": (0.0, 0.0, 0.0),
    "polynomial": (0.0, 0.0, 0.0),
    "step": (0.0, 0.0, 1.0),
    "multistep": (0.0, 0.0, 1.0),
    "plateau": (0.0, 0.0, 1.0),
    "constant": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class ScheduleShape:
    """Start, peak and end of a schedule.

    - `warmup_fraction`: fraction of the steps over which the learning rate rises to its peak.
    - `initial_lr_factor`: the first learning rate, as a factor of the peak; used only with a warm-up.
    - `final_lr_factor`: the last learning rate, as a factor of the peak.
    """

    warmup_fraction: float
    initial_lr_factor: float
    final_lr_factor: float


def schedule_shape(
    name: str,
    warmup_fraction: float | None = None,
    initial_lr_factor: float | None = None,
    final_lr_factor: float | None = None,
) -> ScheduleShape:
    """Returns the shape of schedule `name`, with the schedule's defaults in place of `None`."""
    given = (warmup_fraction, initial_lr_factor, final_lr_factor)
    return ScheduleShape(*(own if each is None else each for each, own in zip(given, _SHAPES[name], strict=True)))


def make_schedule(
    name: str,
    peak: float,
    steps: int,
    steps_per_epoch: float,
    *,
    shape: ScheduleShape,
    power: float = 2.0,
    decay_rate: float = 0.1,
    decay_epochs: float = 30.0,
    decay_milestones: Sequence[float] = (),
) -> optax.Schedule:
    """Builds the learning rate as a function of the step.

    **Arguments:**

    - `name`: a value of the recipe's `schedule` setting.
    - `peak`: the largest learning rate.
    - `steps`, `steps_per_epoch`: length of the run and of an epoch.
    - `shape`: the result of `schedule_shape`.
    - `power`: exponent of `polynomial`.
    - `decay_rate`: factor by which each drop of `step` and `multistep` multiplies the learning rate.
    - `decay_epochs`: epochs between two drops of `step`.
    - `decay_milestones`: the epochs at which `multistep` drops.
    """
    rise = int(shape.warmup_fraction * steps)
    end, rest = shape.final_lr_factor * peak, steps - rise
    match name:
        case "one_cycle" | "cosine":
            fall = _interpolate(peak, end, rest, use_cosine=True)
        case "polynomial":
            fall = optax.polynomial_schedule(peak, end, power, rest)
        case "step":
            fall = _drop(peak, decay_rate, rise, lambda epoch: epoch // decay_epochs, steps_per_epoch)
        case "multistep":
            milestones = sorted(decay_milestones)
            fall = _drop(
                peak, decay_rate, rise, lambda epoch: sum(epoch >= each for each in milestones), steps_per_epoch
            )
        case _:
            fall = _interpolate(peak, end, rest, use_cosine=False)
    if not rise:
        return fall
    warmup = _interpolate(shape.initial_lr_factor * peak, peak, rise, use_cosine=name == "one_cycle")
    return optax.join_schedules([warmup, fall], [rise])


def _drop(
    peak: float, decay_rate: float, rise: int, count_drops: Callable[..., int], steps_per_epoch: float
) -> optax.Schedule:
    """Multiplies the peak by `decay_rate` per drop; epochs count from the start of the run, warm-up included."""
    # Half a step is added because rounding could delay a drop by a step: `3 // 0.1` is 29.
    return lambda count: peak * decay_rate ** count_drops((count + rise + 0.5) / steps_per_epoch)


def _interpolate(start: float, end: float, steps: int, use_cosine: bool) -> optax.Schedule:
    """Builds a schedule from one learning rate to another, along a straight line or half a cosine."""
    if not use_cosine:
        return optax.linear_schedule(start, end, steps)
    remaining = optax.cosine_decay_schedule(1.0, steps)
    return lambda count: end + (start - end) * remaining(count)
