"""Optimizers: optax's update rules, chained with gradient clipping, weight decay, a schedule and factors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import jax
import optax
from jaxtyping import Array, PyTree
from optax.contrib import reduce_on_plateau

from .. import manual
from .factors import Factor, assign_factors, scale_by_factors, scale_by_layer, zero_frozen_gradients
from .muon import Muon, make_muon, rescale_kernels

__all__ = [
    "Clipping",
    "Optimizer",
    "OptimizerName",
    "OwnOptimizer",
    "Plateau",
    "apply_optimizer",
    "is_decayed",
    "make_optimizer",
]

#: An optax gradient transformation, or the pair of functions that `eqxcnn.manual` uses instead.
Optimizer: TypeAlias = optax.GradientTransformation | manual.Optimizer

#: A user's update rule, which includes its learning rate; or a function that takes the schedule and returns a rule.
OwnOptimizer: TypeAlias = optax.GradientTransformation | Callable[[optax.Schedule], optax.GradientTransformation]

OptimizerName: TypeAlias = Literal["adam", "adamw", "lamb", "lion", "muon", "nesterov", "rmsprop", "sgd"]


@dataclass(frozen=True)
class Clipping:
    """Limits on the gradients, applied in this order; 0 for no limit.

    - `value`: largest absolute value of each element.
    - `agc`: largest norm of a filter's gradient, as a fraction of the filter's norm (Brock et al. 2021, section 4.1).
    - `norm`: largest norm of all gradients together.
    """

    value: float = 0.0
    agc: float = 0.0
    norm: float = 0.0


@dataclass(frozen=True)
class Plateau:
    """Drops the learning rate when the training loss stops falling.

    - `decay_rate`: factor by which each drop multiplies the learning rate.
    - `patience_epochs`: epochs without a better loss before a drop.
    """

    decay_rate: float
    patience_epochs: int


def make_optimizer(
    name: OptimizerName | optax.GradientTransformation,
    schedule: optax.Schedule,
    steps_per_epoch: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    muon: Muon | None = None,
    rescale_kernels_every: int = 0,
    weight_decay: float = 0.0,
    decay_norms_and_biases: bool = False,
    clipping: Clipping | None = None,
    factors: Sequence[Factor] = (),
    layer_decay: float = 1.0,
    plateau: Plateau | None = None,
    accumulate_steps: int = 1,
) -> optax.GradientTransformation:
    """Builds an optimizer.

    Gradients of frozen parameters are set to zero, the others are clipped, the rule and the weight decay are applied,
    and the update is scaled by schedule and factors.

    A parameter's factor multiplies its whole update, and its weight decay is divided by the factor beforehand, so that
    the decay per step is the same for all parameters: a factor makes a parameter learn faster, not shrink faster. This
    equals torch's SGD with parameter groups of learning rate `f lr` and decay `wd / f`, as in the code of Jordan 2024,
    section 3.4. `layer_decay` multiplies both the update and the decay, as in the code of Clark et al. 2020.

    **Arguments:**

    - `name`: the name of an update rule, or an optax transformation that includes learning rate and weight decay.
      Clipping, factors, `layer_decay`, `plateau`, rescaling and accumulation apply in both cases.
    - `schedule`: the learning rate as a function of the number of updates.
    - `steps_per_epoch`: updates per epoch.
    - `momentum`: weight of past updates in `sgd`, `nesterov`, `rmsprop` and the SGD beside `muon`.
    - `nesterov`: whether `sgd`, `rmsprop` and the SGD beside `muon` use Nesterov momentum.
    - `muon`: options of the rule `muon`; its defaults if left out.
    - `rescale_kernels_every`: see `every` of `rescale_kernels`; 0 for no rescaling.
    - `weight_decay`: weight decay per step, before the multiplication by the learning rate; applies only to kernels and
      matrices, unless `decay_norms_and_biases` is set.
    - `clipping`: limits on the gradients.
    - `factors`: learning-rate factors of individual parameters.
    - `layer_decay`: learning rate of each layer as a factor of the next layer's rate.
    - `plateau`: lowers the learning rate when the loss stops falling; `update` then needs the loss as its argument
      `value`.
    - `accumulate_steps`: number of batches whose mean gradient makes one update.

    **Raises:** `InputError` when the optimizer's `init` is called, if a factor's pattern matches no parameter.
    """
    stages = [zero_frozen_gradients(factors)] if factors else []
    stages += _make_clipping(clipping or Clipping())
    if isinstance(name, optax.GradientTransformation):
        stages.append(name)
    else:
        decay = partial(_add_weight_decay, weight_decay, decay_norms_and_biases, factors)
        rule = _make_rule(name, momentum, nesterov, muon or Muon(), decay)
        stages += [*rule, optax.scale_by_learning_rate(schedule)]
    if layer_decay != 1:
        stages.append(scale_by_layer(layer_decay))
    if factors:
        stages.append(scale_by_factors(factors, steps_per_epoch))
    if plateau is not None:
        size = max(round(steps_per_epoch), 1)
        stages.append(reduce_on_plateau(plateau.decay_rate, plateau.patience_epochs, accumulation_size=size))
    if rescale_kernels_every:
        stages.append(rescale_kernels(rescale_kernels_every, factors, steps_per_epoch))
    chain = optax.chain(*stages)
    if accumulate_steps == 1:
        return chain
    accumulated: Any = optax.MultiSteps(chain, accumulate_steps)
    return optax.GradientTransformationExtraArgs(accumulated.init, accumulated.update)


def apply_optimizer(
    optimizer: Optimizer, gradients: PyTree, opt_state: PyTree, params: PyTree, loss: Array
) -> tuple[PyTree, PyTree]:
    """Returns the optimizer's updates and its new state; passes the loss to transformations that use it."""
    if isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return optimizer.update(gradients, opt_state, params, value=loss)
    return optimizer.update(gradients, opt_state, params)


def is_decayed(param: Array) -> bool:
    """Returns whether weight decay applies to a parameter by default: yes for kernels and matrices, else no."""
    return param.ndim > 1


def _make_rule(
    name: OptimizerName,
    momentum: float,
    nesterov: bool,
    muon: Muon,
    decay: Callable[..., optax.GradientTransformation],
) -> list[optax.GradientTransformation]:
    """Builds the stages that turn gradients into updates for a learning rate of one, with weight decay.

    Where torch adds the weight decay to the gradient, the decay comes before the rule.

    **Arguments:**

    - `decay`: returns the stage that adds the weight decay. It takes a function that returns whether a parameter is
      decayed in this stage; without one, all are.
    """
    sgd = optax.trace(momentum, nesterov or name == "nesterov") if momentum else optax.identity()
    match name:
        case "adam":
            return [decay(), optax.scale_by_adam()]
        case "adamw":
            return [optax.scale_by_adam(), decay()]
        case "lamb":
            # You et al. 2020, algorithm 2: the trust ratio includes the decay.
            return [optax.scale_by_adam(eps=1e-6), decay(), optax.scale_by_trust_ratio()]
        case "lion":
            return [optax.scale_by_lion(), decay()]
        case "muon" if muon.others == "sgd":
            return [decay(lambda param: not muon.applies_to(param)), make_muon(muon, sgd), decay(muon.applies_to)]
        case "muon":
            return [make_muon(muon, sgd), decay()]
        case "rmsprop":
            return [decay(), optax.chain(optax.scale_by_rms(0.9), sgd)]
    return [decay(), sgd]


def _make_clipping(clipping: Clipping) -> list[optax.GradientTransformation]:
    stages = []
    if clipping.value:
        stages.append(optax.clip(clipping.value))
    if clipping.agc:
        stages.append(_transpose_matrices(optax.adaptive_grad_clip(clipping.agc)))
    if clipping.norm:
        stages.append(optax.clip_by_global_norm(clipping.norm))
    return stages


def _transpose_matrices(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adapts a clipping transformation for dense matrices `[in out]` to this library's matrices `[out in]`."""

    def transpose(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)

    return optax.stateless(
        lambda updates, params: transpose(clip.update(transpose(updates), optax.EmptyState(), transpose(params))[0])
    )


def _add_weight_decay(
    weight_decay: float,
    decay_norms_and_biases: bool,
    factors: Sequence[Factor],
    applies_to: Callable[[Array], bool] = lambda param: True,
) -> optax.GradientTransformation:
    """Adds each parameter's weight decay to its gradient or update; does nothing if the decay is 0."""
    if not weight_decay:
        return optax.identity()

    def add(update: Array, param: Array, factor: Factor) -> Array:
        if not factor.value or not applies_to(param) or not (decay_norms_and_biases or is_decayed(param)):
            return update
        return update + weight_decay / factor.value * param

    return optax.stateless(
        lambda updates, params: jax.tree.map(add, updates, params, assign_factors(factors, cast(PyTree, params)))
    )
