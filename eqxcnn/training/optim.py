"""The optimiser a recipe names: optax's rules, with a schedule, weight decay and factors of single parameters."""

import math
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from .. import manual
from .factors import Factor, assign, parse_factors
from .recipe import Recipe
from .step import Optimizer

#: Of each schedule, where the recipe leaves them open: the share of steps that warm up, the first and last factor.
_SHAPES = {
    # Smith and Topin 2017: up from 1/25 of the peak, and down to a 300th of that.
    "one_cycle": (0.25, 1 / 25, 1 / 7500),
    "cosine": (0.0, 0.0, 0.0),
    "linear": (0.0, 0.0, 0.0),
    "constant": (0.0, 0.0, 1.0),
}


def schedule_shape(recipe: Recipe) -> dict[str, float]:
    """The recipe's `warmup_share`, `first_factor` and `last_factor`, or those of its schedule where it has none."""
    names = ("warmup_share", "first_factor", "last_factor")
    given = {name: getattr(recipe, name) for name in names}
    return {
        name: usual if given[name] is None else given[name]
        for name, usual in zip(names, _SHAPES[recipe.schedule], strict=True)
    }


def make_schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    """The learning rate at each of a run's `steps` steps: up from its first factor to the peak, down to its last."""
    shape, peak = schedule_shape(recipe), recipe.learning_rate
    rise = int(shape["warmup_share"] * steps)
    fall = _between(peak, shape["last_factor"] * peak, steps - rise, recipe.schedule in ("cosine", "one_cycle"))
    if not rise:
        return fall
    return optax.join_schedules(
        [_between(shape["first_factor"] * peak, peak, rise, recipe.schedule == "one_cycle"), fall], [rise]
    )


def _between(start: float, end: float, steps: int, is_cosine: bool) -> optax.Schedule:
    """From one learning rate to another in a straight line, or along half a cosine."""
    if not is_cosine:
        return optax.linear_schedule(start, end, steps)
    share = optax.cosine_decay_schedule(1.0, steps)
    return lambda count: end + (start - end) * share(count)


def make_optimizer(recipe: Recipe, steps: int, steps_per_epoch: int) -> Optimizer:
    """The recipe's update rule, its schedule stretched over `steps` steps.

    A parameter's `learning_rate_factors` multiply its whole update, and its weight decay is divided by them, so that
    what the decay takes away at a step is the same for all parameters: a factor makes one learn faster, not shrink
    faster (as torch's SGD does with groups of learning rates `f lr` and decays `wd / f`, which is how the code of
    Jordan 2024, section 3.4, calls it). With `sgd` the decay is torch's: it is added to the gradient and passes through
    momentum.

    **Raises:** `InputError`, where it is given a model's parameters, for a factor's pattern that none of them fits.
    """
    if recipe.gradients == "by_hand":
        return manual.sgd(recipe.learning_rate)
    factors = parse_factors(recipe.learning_rate_factors)
    decay = _decayed(recipe, factors) if recipe.weight_decay else optax.identity()
    rate = optax.scale_by_learning_rate(make_schedule(recipe, steps))
    if recipe.optimizer == "sgd":
        momentum = optax.trace(recipe.momentum, recipe.nesterov) if recipe.momentum else optax.identity()
        stages = (decay, momentum, rate)
    elif recipe.optimizer == "adam":
        stages = (decay, optax.scale_by_adam(), rate)
    else:
        stages = (optax.scale_by_adam(), decay, rate)
    # Frozen first too: where a gradient is not looked at, the compiler does not compute it.
    around = (_unfrozen(factors), _scaled(factors, steps_per_epoch)) if factors else (optax.identity(),) * 2
    return optax.chain(around[0], *stages, around[1])


def _decayed(recipe: Recipe, factors: Sequence[Factor]) -> optax.GradientTransformation:
    """Adds the decay of each parameter to its gradient or update."""

    def decayed(update: Array, param: Array, factor: Factor) -> Array:
        if not factor.value or not (recipe.decay_norms_and_biases or is_decayed(param)):
            return update
        return update + recipe.weight_decay / factor.value * param

    return optax.stateless(
        lambda updates, params: jax.tree.map(decayed, updates, params, assign(factors, cast(PyTree, params)))
    )


def is_decayed(param: Array) -> bool:
    """True for kernels and matrices: decaying a norm's scale or a bias only shrinks what the next layer sees."""
    return param.ndim > 1


def _unfrozen(factors: Sequence[Factor]) -> optax.GradientTransformation:
    """No gradient where the factor is 0."""

    def unfrozen(gradient: Array, factor: Factor) -> Array:
        return gradient if factor.value else jnp.zeros_like(gradient)

    return optax.stateless(lambda updates, _: jax.tree.map(unfrozen, updates, assign(factors, updates)))


def _scaled(factors: Sequence[Factor], steps_per_epoch: int) -> optax.GradientTransformation:
    """Each update times its factor, and exactly nothing once the factor's epochs are over."""

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        assign(factors, params)  # refuses patterns that fit nothing
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        def scaled(update: Array, factor: Factor) -> Array:
            if factor.epochs == math.inf:
                return update * factor.value
            return jnp.where(state.count < factor.epochs * steps_per_epoch, update * factor.value, 0)

        after = jax.tree.map(scaled, updates, assign(factors, updates))
        return after, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
