"""Counts parameters and multiply-adds; multiply-adds are counted in a jaxpr, so the model is not run."""

from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, TypeAlias

import equinox as eqx
import jax
from jaxtyping import PyTree

__all__ = [
    "Equation",
    "Jaxpr",
    "count_multiply_adds",
    "count_multiply_adds_by_scope",
    "count_parameters",
    "register_multiply_adds",
    "register_product_scope",
    "shape_of",
]

# `jax.extend.core`, which has the types of jaxprs and their equations, comes without a compatibility guarantee.
Jaxpr: TypeAlias = Any
Equation: TypeAlias = Any

#: For each primitive's name, the function that counts the multiply-adds of one equation.
_COUNTERS: dict[str, Callable[[Equation], int]] = {}
_PRODUCT_SCOPES: set[str] = set()


def register_multiply_adds(primitive_name: str, count: Callable[[Equation], int]) -> None:
    """Registers `count` for a primitive; `count` returns the multiply-adds of one jaxpr equation of this primitive."""
    _COUNTERS[primitive_name] = count


def register_product_scope(name: str) -> None:
    """Makes each element of a product (`mul`) inside `jax.named_scope(name)` count as one multiply-add.

    Kernels that compute a convolution as a sum of elementwise products need such a scope. Other operations in the scope
    count as 0.
    """
    _PRODUCT_SCOPES.add(name)


def count_parameters(model: PyTree) -> int:
    """Returns the number of elements in the arrays of a model; the model may come from `eqx.filter_eval_shape`."""
    leaves = jax.tree.leaves(model)
    return sum(leaf.size for leaf in leaves if eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))


def count_multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the multiply-adds of convolutions and matrix products in `function(*arguments)`, as papers count them.

    **Arguments:**

    - `function`, `arguments`: as for `jax.make_jaxpr`; the arguments may be `jax.ShapeDtypeStruct`s.
    """
    return count_multiply_adds_by_scope(function, *arguments).total()


def count_multiply_adds_by_scope(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Returns the multiply-adds per `jax.named_scope`.

    Each key joins the names of nested scopes, outermost first: `"block/conv"`. JAX includes transformations in the
    names: `"block/vmap(conv)"`.
    """
    counts: Counter[str] = Counter()
    for scope, equation in _iterate_equations(jax.make_jaxpr(function)(*arguments).jaxpr, ""):
        *outer, innermost = scope.split("/")
        if any(name in innermost for name in _PRODUCT_SCOPES):
            counts["/".join(outer)] += prod(shape_of(equation.outvars[0])) if equation.primitive.name == "mul" else 0
        else:
            counts[scope] += _COUNTERS.get(equation.primitive.name, lambda _: 0)(equation)
    return counts


def shape_of(operand: Any) -> tuple[int, ...]:
    """Returns the shape of an input or output of a jaxpr equation."""
    return operand.aval.shape


def _iterate_equations(jaxpr: Jaxpr, outer_scope: str) -> Iterator[tuple[str, Equation]]:
    """Yields every equation of a jaxpr with its scope; enters nested jaxprs (jit, custom derivatives)."""
    for equation in jaxpr.eqns:
        # A nested jaxpr records only the scopes that were opened inside it.
        scope = f"{outer_scope}/{equation.source_info.name_stack}".strip("/")
        yield scope, equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner_jaxpr = getattr(inner, "jaxpr", inner)  # unwraps a `ClosedJaxpr`
                if hasattr(inner_jaxpr, "eqns"):
                    yield from _iterate_equations(inner_jaxpr, scope)


def _count_convolution(equation: Equation) -> int:
    kernel = shape_of(equation.invars[1])
    out_channel_axis = equation.params["dimension_numbers"].rhs_spec[0]
    return prod(shape_of(equation.outvars[0])) * prod(kernel) // kernel[out_channel_axis]


def _count_matrix_product(equation: Equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = shape_of(equation.invars[0])
    return prod(shape_of(equation.outvars[0])) * prod(left[axis] for axis in contracted)


register_multiply_adds("conv_general_dilated", _count_convolution)
register_multiply_adds("dot_general", _count_matrix_product)
