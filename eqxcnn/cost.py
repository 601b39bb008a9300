"""How many multiply-adds a function takes, read from its jaxpr without running it."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds of the convolutions and matrix products in `function(*arguments)`: what papers count.

    **Arguments:**

    - `function`, `arguments`: as for `jax.make_jaxpr`; `jax.ShapeDtypeStruct`s will do.
    """
    return sum(_cost_of(equation) for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every equation, those of nested jaxprs (jit, custom derivatives) too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _equations(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from _equations(inner)


def _cost_of(equation: JaxprEqn) -> int:
    """Multiply-adds of one equation: outputs times the products summed into each."""
    if equation.primitive.name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        numbers = equation.params["dimension_numbers"]
        return prod(_shape(equation.outvars[0])) * prod(kernel) // kernel[numbers.rhs_spec[0]]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return prod(_shape(equation.outvars[0])) * prod(left[axis] for axis in contracted)
    return 0


def _shape(operand: Any) -> tuple[int, ...]:
    return operand.aval.shape
