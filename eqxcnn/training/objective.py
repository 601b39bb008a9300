"""What a recipe's training minimizes: the loss, its gradients, how much classes count, how images are mixed."""

from functools import partial
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .. import manual
from ..augment import Mix
from ..data import DataInfo
from ..errors import InputError
from ..optim.losses import Loss
from ..recipe.recipe import Recipe
from ..types import Classifier
from .step import ValueAndGrad, autodiff


def class_weights(recipe: Recipe, labels: Int[np.ndarray, " n"], info: DataInfo) -> tuple[float, ...]:
    """How much each class counts in the loss; nothing where all count the same."""
    if not recipe.class_weights:
        return ()
    count = len(info.class_names)
    if recipe.class_weights == "balanced":
        images = np.bincount(labels, minlength=count)
        return tuple((len(labels) / count / np.maximum(images, 1)).round(6).tolist())
    if len(recipe.class_weights) != count:
        raise InputError(f"`class_weights` has {len(recipe.class_weights)} numbers, and the data {count} classes")
    return recipe.class_weights


def mix(recipe: Recipe) -> Mix | None:
    """How images of a batch are mixed, if at all."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mix(recipe.mixup, recipe.cutmix, recipe.mix_probability, recipe.mix_switch_probability)


def value_and_grad(recipe: Recipe, model: Classifier, weights: tuple[float, ...]) -> ValueAndGrad:
    """How the step gets its gradients."""
    if recipe.gradients == "autodiff":
        loss = Loss(recipe.loss, recipe.label_smoothing, recipe.focal_gamma, weights)
        return autodiff(loss, jnp.bfloat16 if recipe.precision == "bf16" else jnp.float32)
    if not isinstance(model, manual.HandDerived):
        raise InputError(f"`gradients` (='by_hand'): `{recipe.model}` has no backward pass of its own, `scratch` has")
    return cast(ValueAndGrad, partial(manual.value_and_grad, label_smoothing=recipe.label_smoothing))
