"""Which values a recipe's settings may have, each by itself and together."""

import ast
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from beartype.door import is_bearable

from .. import registry
from ..errors import InputError
from ..optim.factors import parse_factors


@dataclass(frozen=True)
class Range:
    """The values that a number may have, declared beside the setting by `Annotated`.

    - `low`, `high`: the smallest and the largest value.
    - `excludes_low`, `excludes_high`: whether these themselves are excluded.
    """

    low: float | int
    high: float | int = math.inf
    excludes_low: bool = False
    excludes_high: bool = False

    def __contains__(self, value: float | int) -> bool:
        is_above = value > self.low if self.excludes_low else value >= self.low
        is_below = value < self.high if self.excludes_high else value <= self.high
        return is_above and is_below and math.isfinite(value)

    def __str__(self) -> str:
        low = f"above {self.low}" if self.excludes_low else f"{self.low} or more"
        if self.high == math.inf:
            return low
        if self.excludes_low or self.excludes_high:
            return f"{low} and {'below' if self.excludes_high else 'at most'} {self.high}"
        return f"from {self.low} to {self.high}"


ABOVE_ZERO = Range(0, excludes_low=True)
AT_LEAST_ZERO = Range(0)
BELOW_ONE = Range(0, 1, excludes_high=True)
UP_TO_ONE = Range(0, 1, excludes_low=True)
PROBABILITY = Range(0, 1)


def check_settings(settings: Any) -> None:
    """Checks type and range of each field of a frozen dataclass; turns an integer into a float where one is declared.

    **Raises:** `InputError` naming the setting, its value, and what was expected.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value = coerce(name, getattr(settings, name), hint)
        object.__setattr__(settings, name, value)
        for allowed in declared_ranges(hint):
            if isinstance(value, int | float) and value not in allowed:
                raise InputError(f"`{name}` (={value}) must be {allowed}")


def coerce(name: str, value: Any, hint: Any) -> Any:
    """Returns `value` if it has the type `hint`; an integer is accepted, and converted, where a float is declared.

    **Raises:** `InputError` naming the setting, its value and the type.
    """
    hint = _plain(hint)
    options = get_args(hint) or (hint,)
    # beartype does not accept an integer as a float.
    if float in options and int not in options and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"`{name}` must be a number that fits a float, and has {len(str(value))} digits") from None
    if not is_bearable(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"`{name}` (={value!r}) must be {describe_type(hint)}")
    return value


def describe_type(hint: Any) -> str:
    """Describes a type in words: `one of 'adam', 'sgd'`, `a whole number or nothing`."""
    hint = _plain(hint)
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        bool: "true or false",
        type(None): "nothing",
    }
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple:
        item, *rest = get_args(hint)
        length = "a list" if Ellipsis in rest else f"a list of {len(rest) + 1}"
        return f"{length}, each {describe_type(item)}"
    # "a number" includes whole numbers.
    options = [option for option in get_args(hint) if option is not int or float not in get_args(hint)]
    return " or ".join(map(describe_type, options))


def parse_arguments(name: str, entries: Sequence[str]) -> dict[str, Any]:
    """Parses keyword arguments written as in Python, `["rate=0.1"]`; their values are literals, nothing is run.

    **Raises:** `InputError` for an entry that cannot be parsed, and for a name given twice.
    """
    arguments: dict[str, Any] = {}
    for entry in entries:
        argument, sign, value = (part.strip() for part in entry.partition("="))
        try:
            if not sign or not argument.isidentifier() or argument in arguments:
                raise ValueError
            arguments[argument] = ast.literal_eval(value)
        except (SyntaxError, ValueError, TypeError):
            message = f"`{name}` (={entry!r}) cannot be read: write `argument=value`, each argument once"
            raise InputError(message) from None
    return arguments


def check_together(recipe: Any) -> None:
    """Checks the settings of a recipe that depend on each other.

    **Arguments:**

    - `recipe`: an `eqxcnn.recipe.Recipe` that has passed `check_settings`.

    **Raises:** `InputError` naming the setting, its value and what to do.
    """
    registry.check_keywords(recipe.model, recipe.architecture_arguments)
    parse_factors(recipe.learning_rate_factors)
    if isinstance(recipe.class_weights, tuple) and min(recipe.class_weights, default=1) <= 0:
        raise InputError(f"`class_weights` (={list(recipe.class_weights)}) must be numbers above 0, one per class")
    if recipe.schedule in ("constant", "step", "multistep", "plateau") and recipe.final_lr_factor not in (None, 1):
        raise InputError(
            f"`final_lr_factor` (={recipe.final_lr_factor}) needs a schedule that falls smoothly, and `schedule` "
            f"(={recipe.schedule!r}) does not: choose linear or cosine"
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
        raise InputError("`pretrained`, `init_from` and `init_images` each set the initial weights: give one of them")
    uses_monitor = recipe.early_stop_epochs or recipe.best_checkpoints or recipe.keep == "best"
    if uses_monitor and not recipe.validation and recipe.monitor.startswith("validation"):
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
    """Refuses settings that have no effect on hand-derived gradients."""
    plain = (recipe.optimizer, recipe.schedule, recipe.momentum, recipe.weight_decay) == ("sgd", "constant", 0, 0)
    if not plain or recipe.warmup_fraction:
        raise InputError(
            "`gradients` (='by_hand') goes with plain gradient descent: set `optimizer` to sgd, `schedule` to "
            "constant, `momentum`, `weight_decay` and `warmup_fraction` to 0"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(recipe)}
    for name in (
        "learning_rate_factors", "freeze", "layer_decay", "clip_norm", "clip_value", "clip_agc", "accumulate_steps",
        "precision", "loss", "class_weights", "mixup", "cutmix",
    ):  # fmt: skip
        if getattr(recipe, name) != defaults[name]:
            raise InputError(f"`gradients` (='by_hand') does not support `{name}`: leave it out")


def _plain(hint: Any) -> Any:
    """Removes `Annotated` from a type and from the members of a union."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (None, Literal, tuple):
        return hint
    options = [_plain(option) for option in get_args(hint)]
    union = options[0]
    for option in options[1:]:
        union = union | option
    return union


def declared_ranges(hint: Any) -> Iterator[Range]:
    """Yields the ranges declared in a type, also for a member of a union."""
    if get_origin(hint) is Annotated:
        yield from (each for each in get_args(hint)[1:] if isinstance(each, Range))
    elif get_origin(hint) not in (None, Literal, tuple):
        for option in get_args(hint):
            yield from declared_ranges(option)
