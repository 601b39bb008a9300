"""How the learning rate moves over a run: optax's schedules, stretched over its steps."""

from collections.abc import Callable

import optax

from ..recipe.recipe import Recipe

#: Of each schedule, where the recipe leaves them open: the share of steps that warm up, the first and last factor.
_SHAPES = {
    # Smith and Topin 2017: up from 1/25 of the peak, and down to a 300th of that.
    "one_cycle": (0.25, 1 / 25, 1 / 7500),
    "cosine": (0.0, 0.0, 0.0),
    "linear": (0.0, 0.0, 0.0),
    "polynomial": (0.0, 0.0, 0.0),
    "step": (0.0, 0.0, 1.0),
    "multistep": (0.0, 0.0, 1.0),
    "plateau": (0.0, 0.0, 1.0),
    "constant": (0.0, 0.0, 1.0),
}


def schedule_shape(recipe: Recipe) -> dict[str, float]:
    """The schedule's `warmup_fraction`, `initial_lr_factor` and `final_lr_factor`, with defaults filled in."""
    names = ("warmup_fraction", "initial_lr_factor", "final_lr_factor")
    given = {name: getattr(recipe, name) for name in names}
    return {
        name: usual if given[name] is None else given[name]
        for name, usual in zip(names, _SHAPES[recipe.schedule], strict=True)
    }


def make_schedule(recipe: Recipe, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """The learning rate at each of a run's `steps` steps: up from its first factor to the peak, down to its last."""
    shape, peak = schedule_shape(recipe), recipe.learning_rate
    rise = int(shape["warmup_fraction"] * steps)
    fall = _fall(recipe, peak, shape["final_lr_factor"] * peak, rise, steps, steps_per_epoch)
    if not rise:
        return fall
    warmup = _between(shape["initial_lr_factor"] * peak, peak, rise, is_cosine=recipe.schedule == "one_cycle")
    return optax.join_schedules([warmup, fall], [rise])


def _fall(recipe: Recipe, peak: float, end: float, rise: int, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """What comes after the warm-up, by the steps since then."""
    match recipe.schedule:
        case "one_cycle" | "cosine":
            return _between(peak, end, steps - rise, is_cosine=True)
        case "polynomial":
            return optax.polynomial_schedule(peak, end, recipe.power, steps - rise)
        case "step":
            return _drops(recipe, peak, rise, lambda epoch: epoch // recipe.decay_epochs, steps_per_epoch)
        case "multistep":
            milestones = sorted(recipe.decay_milestones)
            return _drops(recipe, peak, rise, lambda epoch: sum(epoch >= each for each in milestones), steps_per_epoch)
    return _between(peak, end, steps - rise, is_cosine=False)


def _drops(recipe: Recipe, peak: float, rise: int, drops: Callable[..., int], steps_per_epoch: float) -> optax.Schedule:
    """The peak times `decay_rate` for each drop that there has been; epochs are those of the run, warm-up included."""
    # A half step more: quotients such as 3 / 0.1 fall short of whole numbers.
    return lambda count: peak * recipe.decay_rate ** drops((count + rise + 0.5) / steps_per_epoch)


def _between(start: float, end: float, steps: int, is_cosine: bool) -> optax.Schedule:
    """From one learning rate to another in a straight line, or along half a cosine."""
    if not is_cosine:
        return optax.linear_schedule(start, end, steps)
    share = optax.cosine_decay_schedule(1.0, steps)
    return lambda count: end + (start - end) * share(count)
