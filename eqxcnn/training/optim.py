"""The optimiser a recipe names, from optax."""

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from .. import manual
from .recipe import Recipe
from .step import Optimizer


def make_schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    """The learning rate at each of a run's `steps` steps."""
    if recipe.schedule == "constant":
        return optax.constant_schedule(recipe.learning_rate)
    if recipe.schedule == "cosine":
        return optax.cosine_decay_schedule(recipe.learning_rate, steps)
    # One cycle (Smith and Topin 2017) from 1/25 of the peak, with the fall twelve times deeper than the rise.
    return optax.cosine_onecycle_schedule(
        steps, recipe.learning_rate, pct_start=0.25, div_factor=25, final_div_factor=300
    )


def make_optimizer(recipe: Recipe, steps: int) -> Optimizer:
    """The recipe's update rule, its schedule stretched over `steps` steps."""
    if recipe.gradients == "by_hand":
        return manual.sgd(recipe.learning_rate)
    schedule = make_schedule(recipe, steps)
    if recipe.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=is_decayed)
    decay = optax.add_decayed_weights(recipe.weight_decay, mask=is_decayed) if recipe.weight_decay else optax.identity()
    if recipe.optimizer == "adam":
        return optax.chain(decay, optax.adam(schedule))
    return optax.chain(decay, optax.sgd(schedule, recipe.momentum or None, recipe.nesterov))


def is_decayed(params: PyTree) -> PyTree:
    """True for kernels and matrices: decaying a norm's scale or a bias only shrinks what the next layer sees."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, eqx.filter(params, eqx.is_inexact_array))
