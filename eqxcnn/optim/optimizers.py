"""The optimizer a recipe names: optax's rules, with schedule, clipping, weight decay and factors of parameters."""

import math
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from optax.contrib import MuonDimensionNumbers, muon, reduce_on_plateau

from .. import manual
from ..recipe.recipe import Recipe
from ..training.step import Optimizer
from .factors import Factor, assign, layer_factors, parse_factors
from .schedules import make_schedule

#: Those that add the weight decay to the gradient, as torch's do, and not to the update.
_COUPLED = ("sgd", "nesterov", "adam", "rmsprop")


def make_optimizer(recipe: Recipe, steps: int, steps_per_epoch: int) -> Optimizer:
    """The recipe's update rule, its schedule stretched over `steps` steps.

    In order: gradients of frozen parameters are dropped, the rest is clipped, the rule applied with weight decay, and
    the update scaled by schedule and factors. With `accumulate_steps` all of it sees the mean of so many gradients.

    A parameter's `learning_rate_factors` multiply its whole update, and its weight decay is divided by them, so that
    what the decay takes away at a step is the same for all parameters: a factor makes one learn faster, not shrink
    faster (as torch's SGD does with groups of learning rates `f lr` and decays `wd / f`, which is how the code of
    Jordan 2024, section 3.4, calls it). `layer_decay` multiplies both, as its authors' code does.

    **Raises:** `InputError`, where it is given a model's parameters, for a factor's pattern that none of them fits.
    """
    if recipe.gradients == "by_hand":
        return manual.sgd(recipe.learning_rate)
    factors, each = parse_factors(recipe.learning_rate_factors, recipe.freeze), recipe.accumulate_steps
    updates, per_epoch = max(steps // each, 1), steps_per_epoch / each
    decay = _decayed(recipe, factors) if recipe.weight_decay else optax.identity()
    rate = optax.scale_by_learning_rate(make_schedule(recipe, updates, per_epoch))
    # Frozen first too: where a gradient is not looked at, the compiler does not compute it.
    stages = [_unfrozen(factors)] if factors else []
    stages += _clips(recipe)
    stages += [decay, _rule(recipe)] if recipe.optimizer in _COUPLED else [_rule(recipe), decay]
    if recipe.optimizer == "lamb":
        # You et al. 2020, algorithm 2: the decay is part of what is normalized.
        stages.append(optax.scale_by_trust_ratio())
    stages.append(rate)
    if recipe.layer_decay != 1:
        stages.append(_by_layer(recipe.layer_decay))
    if factors:
        stages.append(_scaled(factors, per_epoch))
    if recipe.schedule == "plateau":
        stages.append(
            reduce_on_plateau(recipe.decay_rate, recipe.patience_epochs, accumulation_size=max(round(per_epoch), 1))
        )
    chain = optax.chain(*stages)
    if each == 1:
        return chain
    accumulated: Any = optax.MultiSteps(chain, each)
    return optax.GradientTransformationExtraArgs(accumulated.init, accumulated.update)


def _rule(recipe: Recipe) -> optax.GradientTransformation:
    """From gradients to updates of the size of a learning rate of one."""
    match recipe.optimizer:
        case "adam" | "adamw":
            return optax.scale_by_adam()
        case "lamb":
            return optax.scale_by_adam(eps=1e-6)
        case "lion":
            return optax.scale_by_lion()
        case "muon":
            # A learning rate of one, downhill; the sign is the schedule's.
            return optax.chain(muon(1.0, muon_weight_dimension_numbers=_matrices), optax.scale(-1))
        case "rmsprop":
            return optax.chain(optax.scale_by_rms(0.9), _momentum(recipe))
    return _momentum(recipe)


def _momentum(recipe: Recipe) -> optax.GradientTransformation:
    nesterov = recipe.nesterov or recipe.optimizer == "nesterov"
    return optax.trace(recipe.momentum, nesterov) if recipe.momentum else optax.identity()


def _matrices(params: PyTree) -> PyTree:
    """What Muon takes for a matrix: a dense layer's `[out in]`; a kernel's `[kh kw in out]`, its first three as one."""
    axes = {2: MuonDimensionNumbers((1,), (0,)), 4: MuonDimensionNumbers((0, 1, 2), (3,))}
    return jax.tree.map(lambda param: axes.get(param.ndim), params)


def _clips(recipe: Recipe) -> list[optax.GradientTransformation]:
    """What keeps gradients small: each value, a filter's beside its weights (AGC), all of them together."""
    stages = []
    if recipe.clip_value:
        stages.append(optax.clip(recipe.clip_value))
    if recipe.clip_agc:
        stages.append(_clipped_by_filter(optax.adaptive_grad_clip(recipe.clip_agc)))
    if recipe.clip_norm:
        stages.append(optax.clip_by_global_norm(recipe.clip_norm))
    return stages


def _clipped_by_filter(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    """Brock et al. 2021, section 4.1: optax takes a dense layer's matrix for `[in out]`, and ours are `[out in]`."""

    def turned(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)

    return optax.stateless(
        lambda updates, params: turned(clip.update(turned(updates), optax.EmptyState(), turned(params))[0])
    )


def _by_layer(decay: float) -> optax.GradientTransformation:
    """Each update times its layer's factor."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(jnp.multiply, updates, layer_factors(decay, cast(PyTree, params)))
    )


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


def _scaled(factors: Sequence[Factor], steps_per_epoch: float) -> optax.GradientTransformation:
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
