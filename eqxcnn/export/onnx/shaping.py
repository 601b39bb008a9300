"""Conversion rules for operations that only rearrange, cut or pad arrays."""

from collections.abc import Callable, Sequence
from typing import Any

from .graph import Graph, Unsupported, tensor
from .values import Dimension, Shape, Value, is_known, is_one

__all__ = ["RULES", "crop"]


def _reshape(graph: Graph, equation: Any, x: Value) -> Value:
    shape = equation.outvars[0].aval.shape
    groups = _match(x.shape, shape)
    stored = x.stored
    moved = [(old, new) for old, new in groups if len(old) != 1 or len(new) != 1]
    # A broadcast axis must be expanded before it is merged or split.
    axes = stored + [axis for old, _ in moved for axis in old if axis not in stored]
    if len(axes) > len(stored) or not all(_is_run(stored, old) for old, _ in moved):
        axes = sorted(axes)
    if not moved:
        return x.relabel(shape, {old[0]: new[0] for old, new in groups} | _pair_ones(x.shape, shape, groups))
    name = graph.place_fully(x, axes)
    first = {old[0]: (old, new) for old, new in groups}
    new_axes = [each for axis in axes if axis in first for each in first[axis][1]]
    return tensor(shape, x.dtype, graph.reshape(name, tuple(shape[axis] for axis in new_axes)), new_axes)


def _match(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Pairs successive groups of old axes with groups of new axes. The two groups of a pair have the same product of
    lengths.

    Axes of length 1 are left out.
    """
    groups = []
    before = [axis for axis, length in enumerate(old) if not is_one(length)]
    after = [axis for axis, length in enumerate(new) if not is_one(length)]
    while before or after:
        left, right = [before.pop(0)], [after.pop(0)]
        many, wanted = old[left[0]], new[right[0]]
        while many != wanted:
            if _is_less(many, wanted):
                left.append(before.pop(0))
                many = many * old[left[-1]]
            else:
                right.append(after.pop(0))
                wanted = wanted * new[right[-1]]
        groups.append((left, right))
    return groups


def _pair_ones(old: Shape, new: Shape, groups: Sequence[tuple[list[int], list[int]]]) -> dict[int, int]:
    """Maps old axes of length 1 to new axes of length 1.

    Axes of length 1 directly before a longer axis, or at the end of the shape, are paired from the last to the first.
    So height and width of 1x1 maps are paired correctly, although `vmap` adds an axis before them.
    """
    ends = [(old_axes[0], new_axes[0]) for old_axes, new_axes in groups] + [(len(old), len(new))]
    pairs: dict[int, int] = {}
    for before, after in ends:
        while before and after and is_one(old[before - 1]) and is_one(new[after - 1]):
            before, after = before - 1, after - 1
            pairs[before] = after
    return pairs


def _is_less(left: Dimension, right: Dimension) -> bool:
    try:
        return bool(left < right)
    except Exception as error:  # JAX cannot compare some symbolic lengths
        raise Unsupported(f"reshapes an array in a way that depends on the batch ({left} and {right})") from error


def _is_run(stored: Sequence[int], axes: Sequence[int]) -> bool:
    """Returns whether axes are stored next to each other, in this order."""
    places = [stored.index(axis) if axis in stored else -1 for axis in axes]
    return places == list(range(places[0], places[0] + len(places))) and places[0] >= 0


def _squeeze(graph: Graph, equation: Any, x: Value) -> Value:
    shape = equation.outvars[0].aval.shape
    kept = [
        axis for axis in range(len(x.shape)) if axis not in {d % len(x.shape) for d in equation.params["dimensions"]}
    ]
    return x.relabel(shape, {old: new for new, old in enumerate(kept)})


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    places = equation.params["broadcast_dimensions"]
    return x.relabel(equation.outvars[0].aval.shape, {old: int(new) for old, new in enumerate(places)})


def _transpose(graph: Graph, equation: Any, x: Value) -> Value:
    order = equation.params["permutation"]
    return x.relabel(equation.outvars[0].aval.shape, {int(old): new for new, old in enumerate(order)})


def _slice(graph: Graph, equation: Any, x: Value) -> Value:
    params = equation.params
    strides = params["strides"] or (1,) * len(x.shape)
    bounds = list(zip(params["start_indices"], params["limit_indices"], strides, strict=True))
    return _cut(graph, x, bounds, equation.outvars[0].aval.shape)


def crop(graph: Graph, x: Value, edges: Sequence[tuple[Any, Any]]) -> Value:
    """Removes elements at the start and the end of each axis; a number -n in `edges` removes n elements."""
    bounds = [
        (max(-before, 0), length + min(after, 0), 1) for length, (before, after) in zip(x.shape, edges, strict=True)
    ]
    return _cut(graph, x, bounds, tuple(limit - start for start, limit, _ in bounds))


def _cut(graph: Graph, x: Value, bounds: Sequence[tuple[Any, Any, int]], shape: Shape) -> Value:
    """Slices a value; `bounds` has `(start, limit, step)` per axis. Broadcast axes need no operation."""
    cuts = [axis for axis in x.stored if bounds[axis] != (0, x.shape[axis], 1)]
    axes = x.stored
    if not cuts:
        return x.relabel(shape, {axis: axis for axis in axes})
    name = graph.place(x, axes)
    starts, ends, steps = zip(*(bounds[axis] for axis in cuts), strict=True)
    if not all(is_known(number) for number in (*starts, *ends)):
        raise Unsupported("slices the batch")
    inputs = [graph.integers(each) for each in (starts, ends, [axes.index(axis) for axis in cuts], steps)]
    name = graph.add("Slice", [name, *inputs], tuple(shape[axis] for axis in axes))
    return tensor(shape, x.dtype, name, axes)


def _split(graph: Graph, equation: Any, x: Value) -> list[Value]:
    axis, start, parts = equation.params["axis"], 0, []
    for size, out in zip(equation.params["sizes"], equation.outvars, strict=True):
        bounds = [(0, length, 1) for length in x.shape]
        bounds[axis] = (start, start + int(size), 1)
        parts.append(_cut(graph, x, bounds, out.aval.shape))
        start += int(size)
    return parts


def _concatenate(graph: Graph, equation: Any, *values: Value) -> Value:
    along, shape = equation.params["dimension"], equation.outvars[0].aval.shape
    if len(values) == 1:
        return values[0]
    largest = max((value for value in values if value.array is None), key=lambda value: len(value.stored))
    axes = list(largest.stored)
    if {along, *(axis for value in values for axis in value.stored)} - set(axes):
        axes = sorted({*axes, along, *(axis for value in values for axis in value.stored)})
    names = [graph.place_fully(value, axes) for value in values]
    name = graph.add("Concat", names, tuple(shape[axis] for axis in axes), axis=axes.index(along))
    return tensor(shape, values[0].dtype, name, axes)


def _pad(graph: Graph, equation: Any, x: Value, fill: Value) -> Value:
    config = equation.params["padding_config"]
    if any(interior for _, _, interior in config):
        raise Unsupported("pads between the elements of an array")
    if fill.array is None:
        raise Unsupported("pads an array with a computed value")
    x = crop(graph, x, [(low, high) for low, high, _ in config])
    edges = [(max(low, 0), max(high, 0)) for low, high, _ in config]
    padded = [axis for axis, edge in enumerate(edges) if any(edge)]
    if not padded:
        return x
    axes = x.stored if set(padded) <= set(x.stored) else sorted({*x.stored, *padded})
    name, shape = graph.place_fully(x, axes), equation.outvars[0].aval.shape
    pads = graph.integers([edges[axis][end] for end in (0, 1) for axis in axes])
    value = graph.store(fill.array.astype(x.dtype).reshape(()))
    name = graph.add("Pad", [name, pads, value], tuple(shape[axis] for axis in axes), mode="constant")
    return tensor(shape, x.dtype, name, axes)


RULES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "expand_dims": _reshape,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
