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


@dataclass(frozen=True)
class Factor:
    """What the learning rate of some parameters is multiplied by.

    - `pattern`: of the names of their tensors, with `*` for any characters, as in file names.
    - `value`: the factor; 0 leaves the parameters as they are.
    - `epochs`: how long it holds; afterwards the parameters stay as they are.
    """

    pattern: str
    value: float
    epochs: float = math.inf


def parse_factors(entries: Sequence[str]) -> tuple[Factor, ...]:
    """The factors that a recipe's `learning_rate_factors` describe.

    **Raises:** `InputError` for an entry that is not `pattern=factor` or `pattern=factor for n epochs`.
    """
    found = [_FORM.fullmatch(entry.strip()) for entry in entries]
    for entry, match in zip(entries, found, strict=True):
        if match is None:
            raise InputError(
                f"`learning_rate_factors` (={entry!r}) cannot be read: write `*norm*.bias=64`, or "
                "`conv1.weight=1 for 3 epochs`"
            )
    return tuple(
        Factor(match["pattern"], float(match["value"]), float(match["epochs"] or math.inf)) for match in found if match
    )


def assign(factors: Sequence[Factor], params: PyTree) -> PyTree:
    """The factor of each parameter in its place: the last one whose pattern fits its name, else 1.

    **Raises:** `InputError` for a pattern that fits no parameter.
    """
    names = list(named_slots(params))
    for each in factors:
        if not any(fnmatchcase(name, each.pattern) for name in names):
            raise InputError(
                f"`learning_rate_factors` (={each.pattern!r}) fits no parameter; {nearest(each.pattern, names)}"
            )
    plain = Factor("*", 1.0)
    # Names are in the order of the leaves.
    fitting = [next((each for each in reversed(factors) if fnmatchcase(name, each.pattern)), plain) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), fitting)
