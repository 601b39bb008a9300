"""What torch calls the tensors of each family: a file a family, named as the family's file in `eqxcnn/models`.

Such a file holds any of these, and a family whose names are torch's own needs none:

- `RULES`: `(pattern, replacement)` pairs for `re.sub`, applied one after the other to OUR name, which becomes torch's.
- `FLATTENED`: `{our name: (height, width)}` for the matrix of a dense layer that reads maps of that size in a row:
  torch counts `c h w`, we count `h w c`.
- `AXES`: `{pattern: (before, after)}` for tensors of ours that torch keeps with so many axes of length one before
  and after.
- `LEFT_OUT`: patterns of torch's names that our network does without, an auxiliary head say.
- `FORMER`: `(pattern, replacement)` pairs that turn names of older files into torch's of today.
- `TIMM`: what stands for `RULES` in timm's files, which are those of the Hub, where its names are others.

Patterns of `AXES` and `LEFT_OUT` are searched for anywhere in the name.
"""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

#: For `re.sub`: what to look for, and what to put there.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Names:
    """The tables of one family's file, empty where it has none."""

    RULES: tuple[Rule, ...] = ()
    FLATTENED: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    AXES: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    LEFT_OUT: tuple[str, ...] = ()
    FORMER: tuple[Rule, ...] = ()
    TIMM: tuple[Rule, ...] = ()
    #: Whether a file may keep a tensor's values in another shape, in the same order.
    RESHAPED: bool = False

    def as_timm(self) -> "Names":
        """The same family under timm's names. A 7x7 kernel may stand there for a dense layer on a 7x7 map, say."""
        return replace(self, RULES=self.TIMM or self.RULES, RESHAPED=True)

    def torch_name(self, name: str) -> str:
        """Torch's name of our tensor."""
        return _substitute(self.RULES, name)

    def current(self, name: str) -> str:
        """Torch's name of today for a name in a file."""
        return _substitute(self.FORMER, name)

    def is_left_out(self, name: str) -> bool:
        """Whether our network has no place for torch's tensor of that name, and needs none."""
        return any(re.search(pattern, name) for pattern in (r"\.num_batches_tracked$", *self.LEFT_OUT))

    def axes(self, name: str) -> tuple[int, int]:
        """How many axes of length one torch has before and after those of our tensor."""
        return next((axes for pattern, axes in self.AXES.items() if re.search(pattern, name)), (0, 0))


@cache
def names_of(family: str) -> Names:
    """What torch calls the tensors of a family."""
    if importlib.util.find_spec(f"{__name__}.{family}") is None:
        return Names()
    tables = vars(importlib.import_module(f"{__name__}.{family}"))
    return Names(**{table: tables[table] for table in Names.__dataclass_fields__ if table in tables})


def _substitute(rules: tuple[Rule, ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
