"""A program for inference on a CPU, whose convolutions are fused with what follows them; see `fusion.py`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...runtime.compile import jit_with_barriers
from .folded_weights import Folded, Weight, as_jax
from .fusion import Evaluation

__all__ = ["FusedProgram"]


class FusedProgram:
    """A function of weights and one array, compiled for one shape of the array.

    **Arguments:**

    - `function`: a function of a list of arrays, some of which may be `None`, and of an array; it returns an array.
    - `weights`, `array`: arguments of the function.
    """

    def __init__(self, function: Callable[..., Any], weights: Sequence[Any], array: Any) -> None:
        self._given = jax.ShapeDtypeStruct(array.shape, array.dtype)
        self._program = jax.make_jaxpr(function)(list(weights), self._given)

        def call(constants: Sequence[Array], array: Any) -> Array:
            return self.run(constants, array)

        call.__name__ = function.__name__  # the name appears in traces and messages
        self._call = jit_with_barriers(call)

    def constants(self, weights: Sequence[Any], folded: Folded) -> list[Array]:
        """Returns the arrays that `__call__` needs: folded weights, and those that stay as they are."""
        found: list[Array] = []

        def supply(weight: Weight) -> Array:
            found.append(as_jax(weight.value))
            return found[-1]

        evaluation = Evaluation(supply, folded)
        given = [Weight(weight.shape, weight) for weight in weights if weight is not None]
        jax.eval_shape(lambda array: evaluation.run(self._program, [*given, array]), self._given)
        return found

    def __call__(self, constants: Sequence[Array], array: Any) -> Array:
        """Returns the function's result for the weights that `constants` was called with."""
        return self._call(constants, array)

    def run(self, constants: Sequence[Array], array: Any) -> Array:
        """Evaluates the program, compiled or not."""
        remaining = iter(constants)
        evaluation = Evaluation(lambda _: next(remaining), None)
        given = [Weight(variable.aval.shape, None) for variable in self._program.jaxpr.invars[:-1]]
        # With jit disabled, the array may be NumPy's.
        return evaluation.run(self._program, [*given, jnp.asarray(array)])
