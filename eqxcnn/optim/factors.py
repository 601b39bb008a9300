"""Learning-rate factors of single parameters, which the names of their tensors choose."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import jax
from jaxtyping import PyTree

from ..errors import InputError, nearest
from ..weights.tensors import named_slots

_FORM = re.compile(
    r"(?P<pattern>[^\s=]+)\s*=\s*(?P<value>\d+\.?\d*(?:e[+-]?\d+)?)(?:\s+for\s+(?P<epochs>\d+\.?\d*)\s+epochs?)?"
)

#: In the place of a pattern: all but the last layer, which every model of the zoo calls its `head`.
BACKBONE = "backbone"

#: A tensor's name up to the numbers behind its first word: `stages.1.0` of `stages.1.0.conv1.weight`.
_LAYER = re.compile(r"[^.]+(?:\.\d+)*")


@dataclass(frozen=True)
class Factor:
    """What the learning rate of some parameters is multiplied by.

    - `pattern`: of the names of their tensors or of a module that holds them, with `*` for any characters, as in file
      names; `backbone` stands for all but the head.
    - `value`: the factor; 0 leaves the parameters as they are.
    - `epochs`: how long it holds; afterwards the parameters stay as they are.
    - `setting`: what it was written in, for error messages.
    """

    pattern: str
    value: float
    epochs: float = math.inf
    setting: str = "learning_rate_factors"

    def fits(self, name: str) -> bool:
        """Whether it is this tensor's."""
        if self.pattern == BACKBONE:
            return name.split(".")[0] != "head"
        return fnmatchcase(name, self.pattern) or fnmatchcase(name, f"{self.pattern}.*")


def parse_factors(entries: Sequence[str], frozen: Sequence[str] = ()) -> tuple[Factor, ...]:
    """The factors that a recipe's `learning_rate_factors` describe, and behind them the zeros of its `freeze`.

    **Raises:** `InputError` for an entry that is not `pattern=factor` or `pattern=factor for n epochs`.
    """
    found = [_FORM.fullmatch(entry.strip()) for entry in entries]
    for entry, match in zip(entries, found, strict=True):
        if match is None:
            raise InputError(
                f"`learning_rate_factors` (={entry!r}) cannot be read: write `*norm*.bias=64`, or "
                "`conv1.weight=1 for 3 epochs`"
            )
    factors = [
        Factor(match["pattern"], float(match["value"]), float(match["epochs"] or math.inf)) for match in found if match
    ]
    names = [name.strip() for entry in frozen for name in entry.split(",")]
    return (*factors, *(Factor(name, 0.0, setting="freeze") for name in names if name))


def assign(factors: Sequence[Factor], params: PyTree) -> PyTree:
    """The factor of each parameter in its place: the last one whose pattern fits its name, else 1.

    **Raises:** `InputError` for a pattern that fits no parameter.
    """
    names = list(named_slots(params))
    for each in factors:
        if not any(each.fits(name) for name in names):
            known = {*names, *(name.rpartition(".")[0] for name in names)} - {""}
            raise InputError(f"`{each.setting}` (={each.pattern!r}) fits no parameter; {nearest(each.pattern, known)}")
    plain = Factor("*", 1.0)
    # Names are in the order of the leaves.
    fitting = [next((each for each in reversed(factors) if each.fits(name)), plain) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), fitting)


def layer_factors(decay: float, params: PyTree) -> PyTree:
    """`decay` to the power of each parameter's distance from the last layer (Clark et al. 2020, arXiv:2003.10555).

    A layer is what has one name up to its numbers, `stages.1.0` or `stem`; their order is that of the model's fields.
    """
    layers = [match.group() for match in map(_LAYER.match, named_slots(params)) if match]
    order = list(dict.fromkeys(layers))
    factors = [decay ** (len(order) - 1 - order.index(layer)) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(params), factors)
