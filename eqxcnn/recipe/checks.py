"""Checks of a recipe's settings: the range of each setting, and settings that depend on each other."""

import dataclasses
from collections.abc import Sequence
from operator import lt
from typing import Any

from .. import augment, metrics, registry
from ..errors import InputError
from ..optim.factors import parse_factors
from ..parsing import parse_literal
from ..ranges import Range

__all__ = [
    "ABOVE_ZERO",
    "AT_LEAST_ZERO",
    "BELOW_ONE",
    "COUNT",
    "COUNT_OR_NONE",
    "OWN",
    "PROBABILITY",
    "UP_TO_ONE",
    "check_together",
    "parse_arguments",
]

#: The value of a setting such as `model` or `loss` when Python code passes an object instead of a name.
OWN = "own"

ABOVE_ZERO = Range(0, 1_000_000, excludes_low=True)
AT_LEAST_ZERO = Range(0, 1_000_000)
BELOW_ONE = Range(0, 1, excludes_high=True)
UP_TO_ONE = Range(0, 1, excludes_low=True)
PROBABILITY = Range(0, 1)
#: Ranges of counts, such as numbers of steps; all of them fit into 32 bits.
COUNT = Range(1, 1_000_000)
COUNT_OR_NONE = Range(0, 1_000_000)


def parse_arguments(name: str, entries: Sequence[str]) -> dict[str, Any]:
    """Parses keyword arguments written as in Python, `["rate=0.1"]`; values must be literals, and no code is run.

    **Raises:** `InputError` for an entry that cannot be parsed, and for a name given twice.
    """
    arguments: dict[str, Any] = {}
    for entry in entries:
        argument, sign, value = (part.strip() for part in entry.partition("="))
        if not sign or not argument.isidentifier() or argument in arguments:
            raise InputError(f"`{name}` (={entry!r}) cannot be read: write `argument=value`, each argument once")
        arguments[argument] = parse_literal(value, f"`{argument}` in `{name}`")
    return arguments


def check_together(recipe: Any) -> None:
    """Checks the settings of a recipe that depend on each other.

    **Arguments:**

    - `recipe`: an `eqxcnn.recipe.Recipe` that has passed `check_settings`.

    **Raises:** `InputError` naming the setting, its value and what to do.
    """
    if recipe.model != OWN:
        registry.check_keywords(recipe.model, recipe.architecture_arguments)
    parse_factors(recipe.learning_rate_factors, recipe.freeze)
    if recipe.augment != (OWN,):
        augment.build(recipe.augment)
    metrics.build(recipe.metrics)
    _check_monitor(recipe)
    if recipe.mixup or recipe.cutmix:
        augment.Mix(recipe.mixup, recipe.cutmix)
    if recipe.schedule in ("constant", "step", "multistep", "plateau") and recipe.final_lr_factor not in (None, 1):
        raise InputError(
            f"`final_lr_factor` (={recipe.final_lr_factor}) needs a schedule that falls smoothly, but `schedule` "
            f"(={recipe.schedule!r}) does not fall smoothly: choose linear or cosine"
        )
    if recipe.schedule == "multistep" and not recipe.decay_milestones:
        raise InputError(
            "`decay_milestones` is empty, but `schedule` (='multistep') drops the learning rate at these epochs: give "
            "at least one"
        )
    if recipe.gradients == "by_hand":
        _check_by_hand(recipe)
    if recipe.keep == "best" and recipe.average == "swa":
        raise InputError(
            "`keep` (='best') and `average` (='swa') do not go together: the average exists only at the end of the run"
        )
    if recipe.pretrained + (recipe.init_from is not None) + (recipe.init_images > 0) > 1:
        raise InputError("`pretrained`, `init_from` and `init_images` each set the initial weights: give one of them")
    if (recipe.mean is None) != (recipe.std is None):
        raise InputError("`mean` and `std` go together: give both, or neither to have them measured")
    if recipe.resize == "pad" and recipe.crop_fraction not in (None, 1):
        raise InputError(
            f"`crop_fraction` (={recipe.crop_fraction}) must be 1 with `resize` (='pad'), which crops nothing"
        )
    if recipe.cache_size is not None:
        _check_cache_size(recipe)
    if recipe.data_streaming:
        _check_streaming(recipe)
    if recipe.image_size is not None and recipe.model != OWN:
        _check_image_size(recipe)


def _check_cache_size(recipe: Any) -> None:
    name = f"`cache_size` (={list(recipe.cache_size)})"
    if recipe.decode == "stream":
        raise InputError(f"{name} needs images that are decoded once: set `decode` to once, or leave out `cache_size`")
    stages = [] if recipe.augment == (OWN,) else augment.build_stages(recipe.augment)
    if not any(isinstance(stage, augment.RandomResizedCrop) for stage in stages):
        raise InputError(f"{name} needs `random_resized_crop` in `augment`, to crop images to `image_size`")
    if recipe.image_size is not None and any(map(lt, recipe.cache_size, recipe.image_size)):
        raise InputError(f"{name} must be at least `image_size` (={list(recipe.image_size)}) in height and width")


def _check_streaming(recipe: Any) -> None:
    """Refuses settings that do not work with streaming, which reads images in order and once per epoch."""
    for name, refused, instead in (
        ("decode", ("once",), "stream"),
        ("sampling", ("balanced",), "uniform"),
        ("decode_processes", range(1, 1025), "0"),
    ):
        if getattr(recipe, name) in refused:
            raise InputError(
                f"`{name}` (={getattr(recipe, name)}) does not go with `data_streaming`, which reads images in "
                f"order: set `{name}` to {instead}"
            )
    if recipe.cache_size is not None:
        raise InputError("`cache_size` does not go with `data_streaming`, which keeps no images: leave one of them out")


def _check_image_size(recipe: Any) -> None:
    try:
        registry.resolve_image_size(recipe.model, recipe.image_size)
    except InputError as error:
        # The user may have kept the default model because a network will be passed to `fit`.
        is_default = recipe.model == type(recipe)().model
        hint = "; for a network that you pass from Python, set `model` to own" if is_default else ""
        raise InputError(f"{error}{hint}") from error


def _check_monitor(recipe: Any) -> None:
    """Checks `monitor` as far as possible: metrics passed from Python are known only when the run is prepared."""
    if recipe.monitor not in ("train_accuracy", "train_loss") and not recipe.monitor.startswith("validation_"):
        raise InputError(
            f"`monitor` (={recipe.monitor!r}) must be train_loss, train_accuracy, validation_loss, "
            "validation_accuracy, or `validation_` followed by the name of one of `metrics`"
        )
    uses_monitor = recipe.early_stop_epochs or recipe.best_checkpoints or recipe.keep == "best"
    if uses_monitor and not recipe.validation and recipe.monitor.startswith("validation"):
        raise InputError(
            f"`monitor` (={recipe.monitor!r}) needs images that are not trained on: give a `validation` above 0, or "
            "monitor train_loss"
        )


def _check_by_hand(recipe: Any) -> None:
    """Refuses settings that have no effect on hand-derived gradients."""
    plain = (recipe.optimizer, recipe.schedule, recipe.momentum, recipe.weight_decay) == ("sgd", "constant", 0, 0)
    if not plain or recipe.warmup_fraction:
        raise InputError(
            "`gradients` (='by_hand') needs plain gradient descent: set `optimizer` to sgd, `schedule` to constant, "
            "and `momentum`, `weight_decay` and `warmup_fraction` to 0"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(recipe)}
    for name in (
        "learning_rate_factors", "freeze", "layer_decay", "rescale_kernels_every", "clip_norm", "clip_value",
        "clip_agc", "accumulate_steps", "precision", "loss", "class_weights", "mixup", "cutmix",
    ):  # fmt: skip
        if getattr(recipe, name) != defaults[name]:
            raise InputError(f"`gradients` (='by_hand') does not support `{name}`: leave it out")
