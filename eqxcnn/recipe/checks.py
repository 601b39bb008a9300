"""Which values a recipe's settings may have, alone and together."""

import dataclasses
from typing import Any

from .. import registry
from ..errors import InputError
from ..optim.factors import parse_factors
from .settings import check_range, parse_arguments


def check_values(recipe: Any) -> None:
    """Refuses what no run can be made of.

    **Arguments:**

    - `recipe`: an `eqxcnn.training.Recipe`, each of whose settings is of its type.

    **Raises:** `InputError` naming the setting, its value and the range.
    """
    registry.check_keywords(recipe.model, parse_arguments("architecture", recipe.architecture))
    positive = (
        "epochs", "batch_size", "learning_rate", "train_images", "steps_per_call", "keep_checkpoints", "power",
        "decay_epochs", "patience_epochs", "accumulate_steps",
    )  # fmt: skip
    check_range(recipe, positive, "above 0", lambda value: value > 0)
    at_least_zero = (
        "weight_decay", "init_images", "lookahead_every", "initial_lr_factor", "final_lr_factor", "checkpoint_seconds",
        "device_budget", "clip_norm", "clip_value", "clip_agc", "mixup", "cutmix", "focal_gamma",
        "early_stop_epochs", "early_stop_delta", "best_checkpoints", "profile",
    )  # fmt: skip
    check_range(recipe, at_least_zero, "0 or more", lambda value: value >= 0)
    # JAX makes the same key of seeds that differ by 2**32.
    check_range(recipe, ("seed",), f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32)
    below_one = (
        "momentum", "label_smoothing", "validation", "warmup_fraction", "lookahead_decay", "average_decay",
        "average_start",
    )  # fmt: skip
    check_range(recipe, below_one, "0 or more and below 1", lambda value: 0 <= value < 1)
    check_range(recipe, ("layer_decay", "decay_rate"), "above 0 and at most 1", lambda value: 0 < value <= 1)
    check_range(recipe, ("mix_probability", "mix_switch_probability"), "from 0 to 1", lambda value: 0 <= value <= 1)
    parse_factors(recipe.learning_rate_factors)
    if isinstance(recipe.class_weights, tuple) and min(recipe.class_weights, default=1) <= 0:
        raise InputError(f"`class_weights` (={list(recipe.class_weights)}) must be numbers above 0, one a class")
    if recipe.schedule in ("constant", "step", "multistep", "plateau") and recipe.final_lr_factor not in (None, 1):
        raise InputError(
            f"`final_lr_factor` (={recipe.final_lr_factor}) needs a schedule that decays smoothly, and "
            f"`schedule` (={recipe.schedule!r}) does not: choose linear or cosine"
        )
    if recipe.schedule == "multistep" and min(recipe.decay_milestones, default=0) <= 0:
        raise InputError(
            f"`decay_milestones` (={list(recipe.decay_milestones)}) must be epochs above 0 for the `schedule` "
            "multistep: give some"
        )
    if recipe.gradients == "by_hand":
        _check_by_hand(recipe)
    if recipe.keep == "best" and recipe.average == "swa":
        raise InputError("`keep` (='best') and `average` (='swa') do not go together: the mean comes at the end")
    if recipe.pretrained + (recipe.init_from is not None) + (recipe.init_images > 0) > 1:
        raise InputError("`pretrained`, `init_from` and `init_images` each set the first weights: give one of them")
    follows = recipe.early_stop_epochs or recipe.best_checkpoints or recipe.keep == "best"
    if follows and not recipe.validation and recipe.monitor.startswith("validation"):
        raise InputError(
            f"`monitor` (={recipe.monitor!r}) needs images that are not trained on: give a `validation` above 0, or "
            "monitor train_loss"
        )
    if (recipe.mean is None) != (recipe.std is None):
        raise InputError("`mean` and `std` go together: give both, or neither to have them measured")
    if recipe.std is not None and min(recipe.std, default=0) <= 0:
        raise InputError(f"`std` (={list(recipe.std)}) must be above 0 in every channel")
    if recipe.image_size is not None:
        registry.resolve_image_size(recipe.model, recipe.image_size)


def _check_by_hand(recipe: Any) -> None:
    """Refuses what hand-derived gradients have no part in."""
    plain = (recipe.optimizer, recipe.schedule, recipe.momentum, recipe.weight_decay) == ("sgd", "constant", 0, 0)
    if not plain or recipe.warmup_fraction:
        raise InputError(
            "`gradients` (='by_hand') goes with plain gradient descent: set `optimizer` to sgd, `schedule` to "
            "constant, `momentum`, `weight_decay` and `warmup_fraction` to 0"
        )
    # Whatever else there is would be passed over without a word.
    usual = {field.name: field.default for field in dataclasses.fields(recipe)}
    for name in (
        "learning_rate_factors", "freeze", "layer_decay", "clip_norm", "clip_value", "clip_agc", "accumulate_steps",
        "precision", "loss", "class_weights", "mixup", "cutmix",
    ):  # fmt: skip
        if getattr(recipe, name) != usual[name]:
            raise InputError(f"`gradients` (='by_hand') knows no `{name}`: leave it out")
