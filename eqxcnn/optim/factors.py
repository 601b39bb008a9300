"""Learning-rate factors of individual parameters, chosen by the names of their tensors."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..errors import InputError, nearest
from ..ranges import Range
from ..weights.tensors import named_slots

__all__ = [
    "BACKBONE",
    "Factor",
    "assign_factors",
    "layer_factors",
    "parse_factors",
    "scale_by_factors",
    "scale_by_layer",
    "zero_frozen_gradients",
]

#: Neighboring parts of the expression cannot match the same characters, so matching takes linear time.
_ENTRY = re.compile(
    r"(?P<pattern>[^\s=]+)\s*=\s*(?P<value>\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
    r"(?:\s+for\s+(?P<epochs>\d+(?:\.\d*)?)\s+epochs?)?"
)
_VALUE, _EPOCHS = Range(0, 1_000_000), Range(0, 1_000_000)

#: With these limits, matching every pattern with every name takes a fraction of a second.
_MAX_PATTERN, _MAX_STARS, _MAX_FACTORS = 200, 10, 200

#: The pattern for all parameters outside the last layer, which every model of the zoo calls `head`.
BACKBONE = "backbone"

#: Matches the name of a tensor's layer, such as `stages.1.0` in `stages.1.0.conv1.weight`.
_LAYER = re.compile(r"[^.]+(?:\.\d+)*")


@dataclass(frozen=True)
class Factor:
    """A factor that multiplies the learning rate of some parameters.

    - `pattern`: matches the names of the parameters, or of a module that contains them; `*` stands for any characters,
      and `backbone` for all parameters but the head's.
    - `value`: the factor; 0 freezes the parameters.
    - `epochs`: number of epochs after which the parameters are frozen.
    - `setting`: the recipe's setting that contains the factor, for error messages.
    """

    pattern: str
    value: float
    epochs: float = math.inf
    setting: str = "learning_rate_factors"

    def matches(self, name: str) -> bool:
        """Returns whether the factor applies to the tensor called `name`."""
        if self.pattern == BACKBONE:
            return name.split(".")[0] != "head"
        return fnmatchcase(name, self.pattern) or fnmatchcase(name, f"{self.pattern}.*")


def parse_factors(entries: Sequence[str], frozen: Sequence[str] = ()) -> tuple[Factor, ...]:
    """Parses a recipe's `learning_rate_factors`, and appends a factor of 0 for each name in its `freeze`.

    **Raises:** `InputError` for an entry that is not `pattern=factor` or `pattern=factor for n epochs`, for too many
    or too long patterns, and for numbers out of range.
    """
    factors = [_parse_factor(entry) for entry in entries]
    names = [name.strip() for entry in frozen for name in entry.split(",")]
    factors += [Factor(name, 0.0, setting="freeze") for name in names if name]
    for factor in factors:
        if len(factor.pattern) > _MAX_PATTERN or factor.pattern.count("*") > _MAX_STARS:
            raise InputError(
                f"`{factor.setting}` (={factor.pattern!r}) is too long: a pattern has at most {_MAX_PATTERN} "
                f"characters and {_MAX_STARS} `*`"
            )
    if len(factors) > _MAX_FACTORS:
        raise InputError(
            f"`learning_rate_factors` and `freeze` hold {len(factors)} patterns: give at most {_MAX_FACTORS}, and use "
            "`*` to match several names"
        )
    return tuple(factors)


def _parse_factor(entry: str) -> Factor:
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        raise InputError(
            f"`learning_rate_factors` (={entry!r}) cannot be read: write `*norm*.bias=64`, or "
            "`conv1.weight=1 for 3 epochs`"
        )
    value, epochs = float(match["value"]), match["epochs"]
    if value not in _VALUE or (epochs is not None and float(epochs) not in _EPOCHS):
        raise InputError(
            f"`learning_rate_factors` (={entry!r}) must have a factor {_VALUE} and, if given, a number of epochs "
            f"{_EPOCHS}"
        )
    return Factor(match["pattern"], value, math.inf if epochs is None else float(epochs))


def assign_factors(factors: Sequence[Factor], params: PyTree) -> PyTree:
    """Returns a pytree with the factor of each parameter: the last factor whose pattern matches its name, else 1.

    **Raises:** `InputError` for a pattern that matches no parameter.
    """
    names = list(named_slots(params))
    for factor in factors:
        if factor.pattern == BACKBONE and all(map(factor.matches, names)):
            raise InputError(
                f"`{factor.setting}` (={BACKBONE!r}) stands for all parameters but those of `head`, and the "
                "model has no `head`: name the parts of the model instead"
            )
        if not any(factor.matches(name) for name in names):
            known = {*names, *(name.rpartition(".")[0] for name in names)} - {""}
            raise InputError(
                f"`{factor.setting}` (={factor.pattern!r}) matches no parameter; {nearest(factor.pattern, known)}"
            )
    one = Factor("*", 1.0)
    # `named_slots` keeps the order of the leaves.
    chosen = [next((factor for factor in reversed(factors) if factor.matches(name)), one) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def layer_factors(decay: float, params: PyTree) -> PyTree:
    """Returns `decay` to the power of each parameter's distance from the last layer (Clark et al. 2020,
    arXiv:2003.10555).

    The names of a layer's parameters start with the same field and numbers, such as `stem` or `stages.1.0`. Layers are
    ordered as the model's fields are.
    """
    names = [name.split(".") for name in named_slots(params)]
    # Wrappers such as `ChannelsFirst` hold all layers, so their field's name is not part of a layer's name.
    columns = zip(*(name[:-1] for name in names), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    shared = 0 if any(len(name) == shared + 1 for name in names) else shared
    layers = [match.group() for name in names if (match := _LAYER.match(".".join(name[shared:])))]
    order = list(dict.fromkeys(layers))
    factors = [decay ** (len(order) - 1 - order.index(layer)) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def zero_frozen_gradients(factors: Sequence[Factor]) -> optax.GradientTransformation:
    """Zeroes the gradients of parameters whose factor is 0, so that the compiler removes their computation."""

    def zero(gradient: Array, factor: Factor) -> Array:
        return gradient if factor.value else jnp.zeros_like(gradient)

    return optax.stateless(lambda updates, _: jax.tree.map(zero, updates, assign_factors(factors, updates)))


def scale_by_factors(factors: Sequence[Factor], steps_per_epoch: float) -> optax.GradientTransformation:
    """Multiplies each update by its factor; sets the update to zero once the factor's epochs are over."""

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        assign_factors(factors, params)  # raises `InputError` if a pattern matches no parameter
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        def scale(update: Array, factor: Factor) -> Array:
            if factor.epochs == math.inf:
                return update * factor.value
            return jnp.where(state.count < factor.epochs * steps_per_epoch, update * factor.value, 0)

        scaled = jax.tree.map(scale, updates, assign_factors(factors, updates))
        return scaled, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiplies each update by its layer's factor; see `layer_factors`."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(jnp.multiply, updates, layer_factors(decay, cast(PyTree, params)))
    )
