"""Conversion rules for reductions over whole axes and over windows."""

from collections.abc import Callable
from math import prod
from typing import Any

from .elementwise import apply, scalar
from .graph import Graph, Unsupported, tensor
from .shaping import crop
from .values import Value, is_one

__all__ = ["RULES"]


def _reduce(operator: str) -> Callable[..., Value]:
    def rule(graph: Graph, equation: Any, x: Value) -> Value:
        shape = equation.outvars[0].aval.shape
        reduced = {int(axis) for axis in equation.params["axes"]}
        kept = [axis for axis in range(len(x.shape)) if axis not in reduced]
        becomes = {old: new for new, old in enumerate(kept)}
        reduced = {axis for axis in reduced if not is_one(x.shape[axis])}
        if not reduced:
            return x.relabel(shape, becomes)
        axes = x.stored if reduced <= set(x.stored) else sorted({*x.stored, *reduced})
        name = graph.place_fully(x, axes) if reduced - set(x.stored) else graph.place(x, axes)
        new_axes = [becomes[axis] for axis in axes if axis not in reduced]
        over = graph.integers([index for index, axis in enumerate(axes) if axis in reduced])
        name = graph.add(operator, [name, over], tuple(shape[axis] for axis in new_axes), keepdims=0)
        return tensor(shape, x.dtype, name, new_axes)

    return rule


def _pool(graph: Graph, equation: Any, x: Value, operator: str, **attributes: Any) -> Value:
    """Pools windows of images with channels first or with channels last."""
    params, shape = equation.params, equation.outvars[0].aval.shape
    window, strides, edges = params["window_dimensions"], params["window_strides"], params["padding"]
    moved = {axis for axis in range(len(window)) if (window[axis], strides[axis], *edges[axis]) != (1, 1, 0, 0)}
    last = len(window) - 1
    spatial = (last - 2, last - 1) if last not in moved else (last - 1, last)
    # Axes of length 1, such as each image's batch axis under `vmap`, are left out.
    others = [axis for axis in range(len(window)) if axis not in spatial and not is_one(x.shape[axis])]
    if len(window) < 3 or len(others) > 2 or not moved <= set(spatial):
        raise Unsupported("pools windows over axes other than the height and width of images")
    if {*params["base_dilation"], *params["window_dilation"]} != {1}:
        raise Unsupported("pools dilated windows")
    x = crop(graph, x, edges)
    pads = [max(int(edges[axis][end]), 0) for end in (0, 1) for axis in spatial]
    kernel = [int(window[axis]) for axis in spatial]
    if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
        raise Unsupported("pools windows that are not larger than their padding")
    axes = [*others, *[None] * (2 - len(others)), *spatial]
    name = graph.place_fully(x, axes)
    name = graph.add(
        operator, [name], tuple(1 if axis is None else shape[axis] for axis in axes),
        kernel_shape=kernel, strides=[int(strides[axis]) for axis in spatial], pads=pads, **attributes,
    )  # fmt: skip
    return tensor(shape, x.dtype, name, [-1 if axis is None else axis for axis in axes])


def _sum_windows(graph: Graph, equation: Any, x: Value) -> Value:
    mean = _pool(graph, equation, x, "AveragePool", count_include_pad=1)
    return apply(graph, "Mul", mean, scalar(x, prod(map(int, equation.params["window_dimensions"]))))


RULES: dict[str, Callable[..., Any]] = {
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": lambda graph, equation, x: _pool(graph, equation, x, "MaxPool"),
    "reduce_window_sum": _sum_windows,
}
