"""Sizes and padding of two-dimensional windows: one type, one parser and one error message for all layers."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..errors import InputError

__all__ = ["Edges", "Padding", "Pair", "ParsedPadding", "Size", "parse_padding", "parse_pair", "resolve_padding"]

Pair: TypeAlias = tuple[int, int]
#: An integer for height and width, or a `(height, width)` pair.
Size: TypeAlias = int | Pair
#: Pixels added around an image: `((top, bottom), (left, right))`.
Edges: TypeAlias = tuple[Pair, Pair]
#: `"SAME"`, `"VALID"`, a number of pixels, a `(height, width)` pair, or `((top, bottom), (left, right))`.
Padding: TypeAlias = str | Size | Edges
ParsedPadding: TypeAlias = Literal["SAME", "VALID"] | Edges


def parse_pair(name: str, value: Size, least: int) -> Pair:
    """Returns the argument called `name` as a `(height, width)` pair.

    **Raises:** `InputError` unless `value` is an integer of at least `least`, or a pair of such integers.
    """
    match (value, value) if isinstance(value, int) else value:
        case (int() as height, int() as width) if min(height, width) >= least:
            return height, width
    raise InputError(
        f"`{name}` (={value!r}) must be an integer of at least {least}, or a (height, width) pair of such integers."
    )


def parse_padding(padding: Padding) -> ParsedPadding:
    """Returns `"SAME"`, `"VALID"` or `((top, bottom), (left, right))`.

    **Raises:** `InputError` for an invalid `padding`.
    """
    match padding:
        case "SAME" | "VALID":
            return padding
        case int():
            edges = (padding, padding), (padding, padding)
        case (int() as height, int() as width):
            edges = (height, height), (width, width)
        case ((int() as top, int() as bottom), (int() as left, int() as right)):
            edges = (top, bottom), (left, right)
        case _:
            edges = None
    if edges is None or min(map(min, edges)) < 0:
        raise InputError(
            f'`padding` (={padding!r}) must be "SAME", "VALID", or integers of at least 0: a single integer, a '
            "(height, width) pair, or a ((top, bottom), (left, right)) pair of pairs."
        )
    return edges


def resolve_padding(padding: ParsedPadding, size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> Edges:
    """Returns the number of pixels that `padding` adds at each edge of an image.

    `"SAME"` gives `ceil(size / stride)` windows per axis; if the number of added pixels is odd, the extra pixel is at
    the end.

    **Arguments:**

    - `size`: the height and width of the image.
    - `window`: the height and width of the window, dilation included.
    - `stride`: pixels from one window to the next, a `(height, width)` pair.
    """
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        # The last of ceil(n / s) windows starts at (ceil(n / s) - 1) * s and ends inside the padded image.
        rows, columns = (max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(size, window, stride, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    return padding
