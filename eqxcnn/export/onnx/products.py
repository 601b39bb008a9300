"""Conversion rules for convolutions and matrix products."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .elementwise import apply
from .graph import Graph, Unsupported, tensor
from .shaping import crop
from .values import Value

__all__ = ["RULES"]


def _convolve(graph: Graph, equation: Any, images: Value, kernel: Value) -> Value:
    params, shape = equation.params, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1}:
        raise Unsupported("has a transposed convolution")
    if params["batch_group_count"] != 1:
        raise Unsupported("has a convolution with batch groups")
    spatial = numbers.lhs_spec[2:]
    edges = [(0, 0)] * len(images.shape)
    for axis, edge in zip(spatial, params["padding"], strict=True):
        edges[axis] = edge
    images = crop(graph, images, edges)
    pads = [max(edge[end], 0) for end in (0, 1) for edge in params["padding"]]
    names = [graph.place_fully(images, numbers.lhs_spec), graph.place_fully(kernel, numbers.rhs_spec)]
    name = graph.add(
        "Conv", names, tuple(shape[axis] for axis in numbers.out_spec),
        strides=[int(n) for n in params["window_strides"]], pads=pads,
        dilations=[int(n) for n in params["rhs_dilation"]], group=params["feature_group_count"],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
    )  # fmt: skip
    return tensor(shape, images.dtype, name, numbers.out_spec)


def _multiply_matrices(graph: Graph, equation: Any, left: Value, right: Value) -> Value:
    (left_sum, right_sum), (left_batch, right_batch) = (
        tuple(tuple(int(axis) for axis in axes) for axes in pair) for pair in equation.params["dimension_numbers"]
    )
    out = equation.outvars[0].aval
    left, right = (_cast(graph, value, out.dtype) for value in (left, right))
    left_free = _others(left, left_sum, left_batch)
    right_free = _others(right, right_sum, right_batch)
    # The axes of the result, in order: batch, left's free axes, right's free axes.
    places = {
        "batch": range(len(left_batch)),
        "left": range(len(left_batch), len(left_batch) + len(left_free)),
        "right": range(len(left_batch) + len(left_free), len(out.shape)),
    }
    if not left_batch and len(left_sum) == 1:
        if right.array is not None and len(right_free) == 1:
            return _multiply_constant(
                graph, out, left, left_sum[0], right, right_sum[0], places["left"], places["right"][0]
            )
        if left.array is not None and len(left_free) == 1:
            return _multiply_constant(
                graph, out, right, right_sum[0], left, left_sum[0], places["right"], places["left"][0]
            )
    names = []
    for value, parts in ((left, (left_batch, left_free, left_sum)), (right, (right_batch, right_sum, right_free))):
        name = graph.place_fully(value, [axis for part in parts for axis in part])
        lengths = [value.shape[axis] for axis in parts[0]]
        names.append(graph.reshape(name, (*lengths, *(_count(value.shape, part) for part in parts[1:]))))
    batch = tuple(left.shape[axis] for axis in left_batch)
    product = graph.add("MatMul", names, (*batch, _count(left.shape, left_free), _count(right.shape, right_free)))
    return tensor(out.shape, out.dtype, graph.reshape(product, tuple(out.shape)), range(len(out.shape)))


def _multiply_constant(
    graph: Graph, out: Any, x: Value, x_sum: int, matrix: Value, matrix_sum: int, places: Sequence[int], new: int
) -> Value:
    """Multiplies a tensor by a constant matrix.

    The tensor keeps its axis order if the summed axis is its last or second-to-last axis; otherwise the summed axis
    becomes the last axis.

    **Arguments:**

    - `x_sum`, `matrix_sum`: the axes over which the products are summed.
    - `places`: for each other axis of `x`, its position in the result.
    - `new`: the position of the matrix's other axis in the result.
    """
    others = [axis for axis in range(len(x.shape)) if axis != x_sum]
    becomes = {**dict(zip(others, places, strict=True)), x_sum: new}
    if _is_identity(matrix):
        return x.relabel(tuple(out.shape), becomes)
    axes = [*x.stored] if x_sum in x.stored else sorted({*x.stored, x_sum})
    is_second_last = len(axes) > 1 and axes[-2] == x_sum
    if not is_second_last:
        axes = [*(axis for axis in axes if axis != x_sum), x_sum]
    name = graph.place_fully(x, axes)
    new_axes = [becomes[axis] for axis in axes]
    shape = tuple(out.shape[axis] for axis in new_axes)
    if is_second_last:
        inputs = [graph.place_fully(matrix, (1 - matrix_sum, matrix_sum)), name]
    elif len(axes) == 1:
        inputs = [graph.reshape(name, (1, x.shape[x_sum])), graph.place_fully(matrix, (matrix_sum, 1 - matrix_sum))]
        product = graph.add("MatMul", inputs, (1, *shape))
        return tensor(out.shape, out.dtype, graph.reshape(product, shape), new_axes)
    else:
        inputs = [name, graph.place_fully(matrix, (matrix_sum, 1 - matrix_sum))]
    return tensor(out.shape, out.dtype, graph.add("MatMul", inputs, shape), new_axes)


def _cast(graph: Graph, value: Value, dtype: Any) -> Value:
    if value.dtype == dtype:
        return value
    if value.array is not None:
        return Value(value.shape, np.dtype(dtype), value.array.astype(dtype))
    return apply(graph, "Cast", value, dtype=np.dtype(dtype), to=np.dtype(dtype))


def _others(value: Value, *parts: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(value.shape)) if all(axis not in part for part in parts))


def _count(shape: Sequence[Any], axes: Sequence[int]) -> Any:
    return prod(shape[axis] for axis in axes)


def _is_identity(matrix: Value) -> bool:
    array = matrix.array
    return array is not None and array.shape[0] == array.shape[1] and np.array_equal(array, np.eye(len(array)))


RULES: dict[str, Callable[..., Any]] = {"conv_general_dilated": _convolve, "dot_general": _multiply_matrices}
