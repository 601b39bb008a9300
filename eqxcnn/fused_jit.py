"""Compiles a network for inference."""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .layers.cpu import onednn
from .layers.cpu.availability import can_use_primitives
from .runtime.compile import FlatJit, Static, combine, is_concrete, partition

__all__ = ["FusedJit"]


class FusedJit:
    """Like `FlatJit`, but on a CPU with oneDNN the program has fused convolutions; see `layers/cpu/fusion.py`.

    The first call with a pytree folds its weights. The folded weights are kept until the pytree is deleted.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function, self._plain = function, FlatJit(function)
        #: Programs by the pytree's static part and the array's shape and dtype, for all pytrees with this static part.
        self._programs: dict[Any, Any] = {}
        #: The pytrees of earlier calls, by identity.
        self._trees: dict[int, _Tree] = {}

    def __call__(self, tree: Any, array: Any) -> Any:
        """Returns the function's result."""
        known = self._trees.get(id(tree)) or self._add(tree)
        if known.static is None or isinstance(array, jax.core.Tracer):
            return self._plain(tree, array)
        program, constants = known.calls.get((array.shape, array.dtype)) or self._compile(known, array)
        return program(constants, array)

    def _add(self, tree: Any) -> "_Tree":
        arrays, static = partition(tree)
        if not is_concrete(arrays):
            return _Tree([], None)
        is_cpu = jax.default_backend() == "cpu" and onednn.is_available()
        is_fused = is_cpu and can_use_primitives() and all(map(_is_finite, arrays))
        known = self._trees[id(tree)] = _Tree(arrays, static) if is_fused else _Tree([], None)
        weakref.finalize(tree, self._trees.pop, id(tree), None)
        return known

    def _compile(self, known: "_Tree", array: Any) -> Any:
        # Imported here, because it needs private parts of JAX.
        from .layers.cpu.fusion import FusedProgram

        key = known.static, array.shape, array.dtype
        if key not in self._programs:
            call = _bind(self._function, known.static)
            self._programs[key] = FusedProgram(call, known.arrays, array)
        program = self._programs[key]
        call = known.calls[array.shape, array.dtype] = program, program.constants(known.arrays, known.folded)
        return call


class _Tree:
    """A pytree's arrays and static part, its folded weights, and its calls by the shape and dtype of the array.

    `static` is `None` if convolutions are not fused.
    """

    def __init__(self, arrays: list[Any], static: Static | None) -> None:
        self.arrays, self.static = arrays, static
        self.folded: dict[Any, Any] = {}
        self.calls: dict[Any, Any] = {}


def _bind(function: Callable[[Any, Any], Any], static: Static | None) -> Callable[..., Any]:
    return lambda arrays, array: function(combine(arrays, static), array)


def _is_finite(array: Any) -> bool:
    """Returns whether all numbers are finite; oneDNN's ReLU would turn NaN into zero, and hide that a run diverged."""
    is_float = array is not None and jnp.issubdtype(array.dtype, jnp.floating)
    return not is_float or bool(np.isfinite(np.asarray(array, np.float32)).all())
