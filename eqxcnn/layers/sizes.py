"""How a height and a width are given: as one integer for both, or as a pair."""

from typing import TypeAlias

from ..errors import InputError

Size: TypeAlias = int | tuple[int, int]


def pair(name: str, value: Size, least: int) -> tuple[int, int]:
    """`(height, width)` of an argument given as an integer or a pair, refused by its `name` when below `least`."""
    match (value, value) if isinstance(value, int) else value:
        case (int() as height, int() as width) if min(height, width) >= least:
            return height, width
    raise InputError(
        f"`{name}` (={value!r}) must be an integer of at least {least}, or a (height, width) pair of such integers."
    )
