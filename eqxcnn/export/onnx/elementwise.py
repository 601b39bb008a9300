"""Conversion rules for elementwise operations. The operands may be stored in any axis order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph import Graph, tensor
from .values import Shape, Value, is_one

__all__ = ["RULES", "apply", "find_maker", "scalar"]

#: The ONNX operator for each JAX operation that is the same in ONNX.
_SAME = {
    "abs": "Abs", "add": "Add", "add_any": "Add", "and": "And", "ceil": "Ceil", "cos": "Cos", "eq": "Equal",
    "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual",
    "log": "Log", "logistic": "Sigmoid", "lt": "Less", "neg": "Neg", "not": "Not",
    "or": "Or", "pow": "Pow", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def apply(graph: Graph, operator: str, *values: Value, dtype: Any = None, **attributes: Any) -> Value:
    """Adds a node for an elementwise operator; its result has the axis order of the largest operand."""
    rank = max(len(value.shape) for value in values)
    values = tuple(_lift(value, rank) for value in values)
    tensors = [value for value in values if value.array is None]
    # If several operands are equally large, prefer one whose axes are not in JAX's order, such as the result of a
    # convolution.
    largest = max(tensors, key=lambda value: (len(value.stored), value.stored != sorted(value.stored)))
    axes = list(largest.order)
    if missing := {axis for value in values for axis in value.stored} - set(axes):
        axes = sorted({*axes, *missing})
    # The largest operand is placed with all axes; the others omit leading axes of length 1.
    names = [graph.place(value, axes if value is largest else _trim(axes, value)) for value in values]
    shape = _broadcast_shapes([value.shape for value in values])
    if dtype is None:
        dtype = np.dtype(bool) if operator in _COMPARISONS else values[-1].dtype
    name = graph.add(operator, names, tuple(shape[axis] for axis in axes), **attributes)
    return tensor(shape, dtype, name, axes)


def scalar(value: Value, number: float | int) -> Value:
    """Returns a constant with the dtype of `value` and no axes."""
    return Value((), value.dtype, np.array(number, value.dtype))


def find_maker(graph: Graph, value: Value, operator: str) -> Any:
    """Returns the node that computes a value if the node has this operator, else `None`."""
    node = graph.makers.get(value.name) if value.array is None else None
    return node if node is not None and node.operator == operator else None


def _lift(value: Value, rank: int) -> Value:
    """Reshapes a scalar constant to `rank` axes, each of length 1; returns other values unchanged."""
    if len(value.shape) == rank or value.array is None:
        return value
    return Value((1,) * rank, value.dtype, value.array.reshape((1,) * rank))


def _trim(axes: list[int], value: Value) -> list[int | None]:
    """Omits the leading axes that the value does not store, because ONNX broadcasting adds leading axes."""
    stored = value.stored
    first = next((index for index, axis in enumerate(axes) if axis in stored), len(axes))
    return [axis if axis in stored else None for axis in axes[first:]]


def _broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Returns the broadcast shape of operands with the same rank."""
    return tuple(next((length for length in lengths if not is_one(length)), 1) for lengths in zip(*shapes, strict=True))


def _same(operator: str) -> Callable[..., Value]:
    return lambda graph, equation, *values: apply(graph, operator, *values)


def _maximum(graph: Graph, _: Any, x: Value, y: Value) -> Value:
    if y.array is None and x.array is not None:
        x, y = y, x
    if _is_scalar(y, -np.inf):
        return x
    # Runtimes fuse a convolution with a `Relu`, but not with a `Max`.
    return apply(graph, "Relu", x) if _is_scalar(y, 0) else apply(graph, "Max", x, y)


def _minimum(graph: Graph, _: Any, x: Value, y: Value) -> Value:
    if y.array is None and x.array is not None:
        x, y = y, x
    relu = find_maker(graph, x, "Relu")
    if relu is None or not _is_scalar(y):
        return apply(graph, "Min", x, y)
    before = tensor(x.shape, x.dtype, relu.inputs[0], x.axes)
    zero, most = scalar(x, 0), scalar(x, float(np.asarray(y.array).flat[0]))
    return apply(graph, "Clip", before, zero, most)


def _divide(graph: Graph, _: Any, x: Value, y: Value) -> Value:
    """Returns `x / y`; if `x` is `z * y` with a constant `y`, as after an average pool, returns `z`."""
    product = find_maker(graph, x, "Mul")
    if product is not None and y.array is not None and product.inputs[1] in graph.arrays:
        factor = graph.arrays[product.inputs[1]]
        if factor.size == 1 and (np.asarray(y.array) == factor.item()).all():
            return tensor(x.shape, x.dtype, product.inputs[0], x.axes)
    return apply(graph, "Div", x, y)


def _multiply(graph: Graph, _: Any, x: Value, y: Value) -> Value:
    for one, other in ((x, y), (y, x)):
        if _is_scalar(one, 1) and all(map(is_one, one.shape)):
            return other
    return apply(graph, "Mul", x, y)


def _is_scalar(value: Value, number: float | int | None = None) -> bool:
    array = value.array
    return array is not None and array.size == 1 and (number is None or float(array.flat[0]) == number)


def _erfc(graph: Graph, _: Any, x: Value) -> Value:
    """Computes `1 - erf(x)`.

    In a GELU, `x` is `-y * c`; the result is then computed as `1 + erf(y / (1 / c))`, which runtimes can fuse.
    """
    scaled = find_maker(graph, x, "Mul")
    negative = None if scaled is None else graph.makers.get(scaled.inputs[0])
    if scaled is None or negative is None or negative.operator != "Neg" or scaled.inputs[1] not in graph.arrays:
        return apply(graph, "Sub", scalar(x, 1), apply(graph, "Erf", x))
    inverse = graph.store(np.asarray(1 / graph.arrays[scaled.inputs[1]], x.dtype))
    name = graph.add("Div", [negative.inputs[0], inverse], graph.shapes[x.name])
    return apply(graph, "Add", apply(graph, "Erf", tensor(x.shape, x.dtype, name, x.axes)), scalar(x, 1))


def _rsqrt(graph: Graph, _: Any, x: Value) -> Value:
    return apply(graph, "Reciprocal", apply(graph, "Sqrt", x))


def _power(graph: Graph, equation: Any, x: Value) -> Value:
    power = equation.params["y"]
    return apply(graph, "Mul", x, x) if power == 2 else apply(graph, "Pow", x, scalar(x, power))


def _select(graph: Graph, _: Any, condition: Value, when_false: Value, when_true: Value) -> Value:
    if condition.dtype != bool:
        condition = apply(graph, "Cast", condition, dtype=np.dtype(bool), to=np.dtype(bool))
    return apply(graph, "Where", condition, when_true, when_false)


def _convert(graph: Graph, equation: Any, x: Value) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    return x if x.dtype == dtype else apply(graph, "Cast", x, dtype=dtype, to=dtype)


def _clamp(graph: Graph, _: Any, low: Value, x: Value, high: Value) -> Value:
    return apply(graph, "Min", apply(graph, "Max", x, low), high)


def _unchanged(graph: Graph, _: Any, *values: Value) -> Any:
    return values


RULES: dict[str, Callable[..., Any]] = {
    **{name: _same(operator) for name, operator in _SAME.items()},
    "clamp": _clamp,
    "convert_element_type": _convert,
    "copy": _unchanged,
    "copy_p": _unchanged,
    "div": _divide,
    "erfc": _erfc,
    "exp2": lambda graph, _, x: apply(graph, "Pow", scalar(x, 2), x),
    "expm1": lambda graph, _, x: apply(graph, "Sub", apply(graph, "Exp", x), scalar(x, 1)),
    "integer_pow": _power,
    "log1p": lambda graph, _, x: apply(graph, "Log", apply(graph, "Add", x, scalar(x, 1))),
    "max": _maximum,
    "min": _minimum,
    "mul": _multiply,
    "ne": lambda graph, _, x, y: apply(graph, "Not", apply(graph, "Equal", x, y)),
    "optimization_barrier": _unchanged,
    "reduce_precision": _unchanged,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": lambda graph, _, x: apply(graph, "Mul", x, x),
    "stop_gradient": _unchanged,
}
