"""Builds the parts of a training step from a recipe's settings: optimizer, loss, averages, mixing."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Int

from .. import manual
from ..augment import Mix
from ..data import DataInfo
from ..errors import InputError
from ..optim.averages import Lookahead, WeightAverage
from ..optim.factors import parse_factors
from ..optim.losses import FunctionLoss, Loss
from ..optim.muon import Muon
from ..optim.optimizers import Clipping, Optimizer, OptimizerName, OwnOptimizer, Plateau, make_optimizer
from ..optim.schedules import ScheduleShape, make_schedule, schedule_shape
from ..recipe import OWN, Recipe
from ..types import Network
from .setup import ValueAndGrad
from .step import autodiff

__all__ = [
    "build_average",
    "build_lookahead",
    "build_mix",
    "build_optimizer",
    "build_schedule",
    "build_value_and_grad",
    "compute_dtype",
    "resolve_class_weights",
    "resolve_schedule_shape",
]


def build_schedule(recipe: Recipe, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Builds the recipe's learning-rate schedule for a run of `steps` updates."""
    return make_schedule(
        recipe.schedule,
        recipe.learning_rate,
        steps,
        steps_per_epoch,
        shape=resolve_schedule_shape(recipe),
        power=recipe.power,
        decay_rate=recipe.decay_rate,
        decay_epochs=recipe.decay_epochs,
        decay_milestones=recipe.decay_milestones,
    )


def resolve_schedule_shape(recipe: Recipe) -> ScheduleShape:
    """Returns the `ScheduleShape` of the recipe. Values that the recipe leaves out get the schedule's defaults."""
    return schedule_shape(recipe.schedule, recipe.warmup_fraction, recipe.initial_lr_factor, recipe.final_lr_factor)


def build_optimizer(
    recipe: Recipe,
    steps: int,
    steps_per_epoch: int,
    own: OwnOptimizer | None = None,
    schedule: optax.Schedule | None = None,
) -> Optimizer:
    """Builds the recipe's optimizer for a run of `steps` steps; see `make_optimizer`.

    **Arguments:**

    - `own`: an optax transformation to use as the update rule, or a function that takes the schedule and returns such a
      transformation.
    - `schedule`: a schedule to use instead of the recipe's schedule.

    **Raises:** `InputError` when the optimizer's `init` is called, if a factor's pattern matches no parameter.
    """
    if recipe.gradients == "by_hand":
        return manual.sgd(recipe.learning_rate)
    updates, updates_per_epoch = max(steps // recipe.accumulate_steps, 1), steps_per_epoch / recipe.accumulate_steps
    schedule = schedule or build_schedule(recipe, updates, updates_per_epoch)
    return make_optimizer(
        _choose_rule(recipe, own, schedule),
        schedule,
        updates_per_epoch,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        muon=Muon(
            recipe.muon_momentum, recipe.muon_steps, recipe.muon_coefficients, recipe.muon_layers, recipe.muon_others
        ),
        rescale_kernels_every=recipe.rescale_kernels_every,
        weight_decay=recipe.weight_decay,
        decay_norms_and_biases=recipe.decay_norms_and_biases,
        clipping=Clipping(recipe.clip_value, recipe.clip_agc, recipe.clip_norm),
        factors=parse_factors(recipe.learning_rate_factors, recipe.freeze),
        layer_decay=recipe.layer_decay,
        plateau=Plateau(recipe.decay_rate, recipe.patience_epochs) if recipe.schedule == "plateau" else None,
        accumulate_steps=recipe.accumulate_steps,
    )


def _choose_rule(
    recipe: Recipe, own: OwnOptimizer | None, schedule: optax.Schedule
) -> OptimizerName | optax.GradientTransformation:
    if own is None:
        assert recipe.optimizer != OWN, "`Parts.apply_to` refuses `own` without an optimizer"
        return recipe.optimizer
    rule = own if isinstance(own, optax.GradientTransformation) else own(schedule)
    if not isinstance(rule, optax.GradientTransformation):
        raise InputError(f"`optimizer` returned a {type(rule).__name__}: return an optax transformation")
    return rule


def build_lookahead(recipe: Recipe, steps: int) -> Lookahead | None:
    """Builds the recipe's Lookahead; returns `None` if the recipe does not use it."""
    return Lookahead(recipe.lookahead_every, recipe.lookahead_decay, steps) if recipe.lookahead_every else None


def build_average(recipe: Recipe, steps: int, steps_per_epoch: int) -> WeightAverage | None:
    """Builds the recipe's average of the weights; returns `None` if the recipe keeps no average.

    **Raises:** `InputError` if no epoch ends after `average_start`, so that `swa` has nothing to average.
    """
    if recipe.average == "none":
        return None
    start = math.ceil(round(recipe.average_start * steps, 6))
    if recipe.average == "swa" and steps // steps_per_epoch * steps_per_epoch < max(start, 1):
        raise InputError(
            f"`average_start` (={recipe.average_start}) leaves nothing to average, because no epoch ends after this "
            f"fraction of the run's {steps:,} steps: give a smaller value, or more `epochs`"
        )
    return WeightAverage(recipe.average, recipe.average_decay, start, steps_per_epoch)


def build_mix(recipe: Recipe) -> Mix | None:
    """Builds the recipe's mixup and CutMix; returns `None` if the recipe uses neither."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mix(recipe.mixup, recipe.cutmix, recipe.mix_probability, recipe.mix_switch_probability)


def build_value_and_grad(
    recipe: Recipe, model: Network, class_weights: tuple[float, ...], own_loss: Callable[..., Any] | None = None
) -> ValueAndGrad:
    """Builds the function that computes loss and gradients.

    **Arguments:**

    - `own_loss`: a function to use instead of the recipe's loss; see `FunctionLoss`.

    **Raises:** `InputError` if the recipe asks for hand-derived gradients and the model has none.
    """
    if recipe.gradients == "autodiff":
        if own_loss is not None:
            loss = FunctionLoss(own_loss)
        else:
            assert recipe.loss != OWN, "`Parts.apply_to` refuses `own` without a loss"
            loss = Loss(recipe.loss, recipe.label_smoothing, recipe.focal_gamma, class_weights)
        return autodiff(loss, compute_dtype(recipe))
    if not isinstance(model, manual.HandDerived):
        raise InputError(
            f"`gradients` (='by_hand') needs a model that defines its own backward pass: `{recipe.model}` does not, "
            "`scratch` does"
        )
    return cast(ValueAndGrad, partial(manual.value_and_grad, label_smoothing=recipe.label_smoothing))


def compute_dtype(recipe: Recipe) -> DTypeLike:
    """Returns the dtype that the network computes in during training."""
    return jnp.bfloat16 if recipe.precision == "bf16" else jnp.float32


def resolve_class_weights(recipe: Recipe, labels: Int[np.ndarray, " n"], info: DataInfo) -> tuple[float, ...]:
    """Returns the weight of each class in the loss; empty for equal weights.

    **Raises:** `InputError` if the number of weights differs from the number of classes.
    """
    if not recipe.class_weights:
        return ()
    count = len(info.class_names)
    if recipe.class_weights == "balanced":
        images = np.bincount(labels, minlength=count)
        return tuple((len(labels) / count / np.maximum(images, 1)).round(6).tolist())
    if len(recipe.class_weights) != count:
        raise InputError(
            f"`class_weights` has {len(recipe.class_weights)} numbers, but the data have {count} classes: give one "
            "number per class"
        )
    return recipe.class_weights
