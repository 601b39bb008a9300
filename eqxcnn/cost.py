"""What a network costs: its parameters, and its multiply-adds, read from its jaxpr without running it."""

from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import equinox as eqx
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

#: The `jax.named_scope` of a convolution written as a sum over its kernel's pixels: each product there counts as one.
TAPS = "taps"


def count_parameters(model: PyTree) -> int:
    """How many numbers a model's arrays hold; the model may be an abstract one, of `eqx.filter_eval_shape`."""
    leaves = jax.tree.leaves(model)
    return sum(leaf.size for leaf in leaves if eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds of the convolutions and matrix products in `function(*arguments)`: what papers count.

    **Arguments:**

    - `function`, `arguments`: as for `jax.make_jaxpr`; `jax.ShapeDtypeStruct`s will do.
    """
    return multiply_adds_by_scope(function, *arguments).total()


def multiply_adds_by_scope(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """The same, shared out to the `jax.named_scope`s that the products are in, outermost first: `"block/conv"`.

    JAX writes the transformations in between: `"block/vmap(conv)"`.
    """
    costs: Counter[str] = Counter()
    for scope, equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr, ""):
        *around, last = scope.split("/")
        if TAPS in last:
            costs["/".join(around)] += prod(_shape(equation.outvars[0])) if equation.primitive.name == "mul" else 0
        else:
            costs[scope] += _cost_of(equation)
    return costs


def _equations(jaxpr: Jaxpr, around: str) -> Iterator[tuple[str, JaxprEqn]]:
    """Every equation with its scopes, those of nested jaxprs (jit, custom derivatives) too."""
    for equation in jaxpr.eqns:
        # A nested jaxpr knows only the scopes that were opened inside it.
        scope = f"{around}/{equation.source_info.name_stack}".strip("/")
        yield scope, equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _equations(inner.jaxpr, scope)
                elif isinstance(inner, Jaxpr):
                    yield from _equations(inner, scope)


def _cost_of(equation: JaxprEqn) -> int:
    """Multiply-adds of one equation: outputs times the products summed into each."""
    if equation.primitive.name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        numbers = equation.params["dimension_numbers"]
        return prod(_shape(equation.outvars[0])) * prod(kernel) // kernel[numbers.rhs_spec[0]]
    if equation.primitive.name in ("onednn_convolution", "onednn_biased_convolution"):
        kernel = _shape(equation.invars[1])
        return prod(_shape(equation.outvars[0])) * prod(kernel) // kernel[-1]
    if equation.primitive.name == "onednn_product":
        left = _shape(equation.invars[0])
        return prod(_shape(equation.outvars[0])) * left[0 if equation.params["left_turned"] else 1]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return prod(_shape(equation.outvars[0])) * prod(left[axis] for axis in contracted)
    return 0


def _shape(operand: Any) -> tuple[int, ...]:
    return operand.aval.shape
