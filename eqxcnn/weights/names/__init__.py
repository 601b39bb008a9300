"""The names of tensors in torchvision and timm: one file per family, named like the family's file in `eqxcnn/models`.

A family needs no file if its names are the same as torchvision's. Each file defines some of these tables:

- `RULES`: `(pattern, replacement)` pairs for `re.sub`, which turn our name into torch's name when applied in order.
- `FLATTENED`: `{our name: (height, width)}` for the weight of a dense layer that reads flattened maps of that size.
  Torch flattens maps as `c h w`, eqxcnn as `h w c`.
- `AXES`: `{pattern: (before, after)}` for tensors to which torch adds axes of length one; `before` and `after` are
  the numbers of axes added before and after ours.
- `IGNORED`: patterns of torch's names that have no counterpart in eqxcnn, such as auxiliary heads.
- `LEGACY`: `(pattern, replacement)` pairs that turn the names in older files into the current ones.
- `TIMM`: replaces `RULES` for timm's files on the Hub, if timm's names differ.

The patterns of `AXES` and `IGNORED` match anywhere in the name.
"""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

__all__ = ["Names", "Rule", "names_of"]

#: Pattern and replacement of `re.sub`.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Names:
    """The tables of one family's file; tables that the file does not define are empty."""

    RULES: tuple[Rule, ...] = ()
    FLATTENED: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    AXES: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    IGNORED: tuple[str, ...] = ()
    LEGACY: tuple[Rule, ...] = ()
    TIMM: tuple[Rule, ...] = ()
    #: Whether a file's tensor may have a different shape, with the same number of elements in the same order.
    allow_reshape: bool = False

    def for_timm(self) -> "Names":
        """Returns the tables for timm's files, whose shapes may differ: a matrix may be stored as a 7x7 kernel."""
        return replace(self, RULES=self.TIMM or self.RULES, allow_reshape=True)

    def torch_name(self, name: str) -> str:
        """Returns torch's name of our tensor."""
        return _substitute(self.RULES, name)

    def update_legacy_name(self, name: str) -> str:
        """Returns torch's current name of a tensor that an older file may store under another name."""
        return _substitute(self.LEGACY, name)

    def is_ignored(self, name: str) -> bool:
        """Returns whether torch's tensor of this name has no counterpart in eqxcnn."""
        return any(re.search(pattern, name) for pattern in (r"\.num_batches_tracked$", *self.IGNORED))

    def extra_axes(self, name: str) -> tuple[int, int]:
        """Returns how many axes of length 1 torch adds before the axes of our tensor, and how many after them."""
        return next((axes for pattern, axes in self.AXES.items() if re.search(pattern, name)), (0, 0))


@cache
def names_of(family: str) -> Names:
    """Returns the tables of a family; a family without a file has empty tables."""
    if "/" in family:  # a family of another package; `find_spec` would treat the name as a path
        return Names()
    if importlib.util.find_spec(f"{__name__}.{family}") is None:
        return Names()
    tables = vars(importlib.import_module(f"{__name__}.{family}"))
    return Names(**{table: tables[table] for table in Names.__dataclass_fields__ if table in tables})


def _substitute(rules: tuple[Rule, ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
