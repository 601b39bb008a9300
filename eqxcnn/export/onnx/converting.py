"""Converts a traced program to a graph, one JAX operation at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ...layers.cpu.availability import plain_layers
from . import elementwise, products, reductions, shaping
from .folding import fold_scales, remove_unused
from .graph import INPUT, Graph, Unsupported, tensor
from .values import Value, is_known

__all__ = ["convert"]

_RULES = {**elementwise.RULES, **shaping.RULES, **products.RULES, **reductions.RULES}
#: The operations that call a function once; some of them exist only in some supported versions of JAX. `_CALLED` lists
#: those parameters of these operations that may hold the function's program.
_CALLS = {
    "call", "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    "jit", "pjit", "remat", "remat2",
}  # fmt: skip
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def convert(function: Callable[..., Any], pixels: jax.ShapeDtypeStruct) -> tuple[Graph, str]:
    """Traces a function of one array, and returns its graph and the name of the result's tensor.

    **Arguments:**

    - `pixels`: the shape and dtype of the array; the length of its first axis may be symbolic.

    **Raises:** `Unsupported` if an operation has no conversion.
    """
    with plain_layers():
        traced = jax.make_jaxpr(function)(pixels)
    graph = Graph(pixels.shape[0])
    graph.shapes[INPUT] = pixels.shape
    given = tensor(pixels.shape, pixels.dtype, INPUT, range(len(pixels.shape)))
    (result,) = _run(graph, traced.jaxpr, [_constant(const) for const in traced.consts], [given])
    name = graph.place_fully(result, range(len(result.shape)))
    fold_scales(graph, name)
    remove_unused(graph, name)
    return graph, name


def _constant(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array.shape, array.dtype, array)


def _run(graph: Graph, jaxpr: Jaxpr, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
    """Adds the operations of a program to the graph, and returns its results."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(atom: Any) -> Value:
        return _constant(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = _convert_equation(graph, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _convert_equation(graph: Graph, equation: Any, values: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if name in _CALLS:
        called = next(equation.params[key] for key in _CALLED if key in equation.params)
        inner, consts = (called.jaxpr, called.consts) if isinstance(called, ClosedJaxpr) else (called, ())
        return _run(graph, inner, [_constant(const) for const in consts], values)
    if all(value.array is not None for value in values) and (results := _compute(equation, values)) is not None:
        return results
    if name not in _RULES:
        raise Unsupported(f"uses the operation `{name}`, which has no conversion to ONNX")
    results = _RULES[name](graph, equation, *values)
    return [results] if isinstance(results, Value) else results


def _compute(equation: Any, values: Sequence[Value]) -> list[Value] | None:
    """Computes an operation on constants.

    Returns `None` if the shape of a result depends on the batch size, unless the operation is elementwise; the result
    of an elementwise operation is then stored once and broadcast along the batch axis.
    """
    shapes = [out.aval.shape for out in equation.outvars]
    arrays = [np.asarray(value.array) for value in values]
    if equation.primitive.name in elementwise.RULES:
        # The stored arrays may have length 1 along the batch axis.
        arrays = np.broadcast_arrays(*arrays) if any(value.shape for value in values) else arrays
    else:
        if not all(is_known(length) for shape in shapes for length in shape):
            return None
        arrays = [np.broadcast_to(array, value.shape) for array, value in zip(arrays, values, strict=True)]
    results = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [
        Value(shape, np.dtype(out.aval.dtype), np.asarray(result))
        for shape, out, result in zip(shapes, equation.outvars, results, strict=True)
    ]
