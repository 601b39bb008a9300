"""Compiles a network for inference."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .layers.cpu import onednn
from .layers.cpu.availability import can_use_primitives
from .runtime.compile import FlatJit, Static, combine, is_concrete, partition

__all__ = ["FusedJit"]


@dataclass(eq=False)
class _Tree:
    """What is known about a pytree.

    - `is_fused`: whether its programs have fused convolutions; if not, the other attributes are not used.
    - `folded`: its folded weights, which the programs for all batch sizes share.
    - `calls`: the program and its arguments, by the shape and dtype of the array.
    """

    arrays: list[Any]
    static: Static
    is_fused: bool
    folded: dict[Any, Any] = field(default_factory=dict)
    calls: dict[Any, Any] = field(default_factory=dict)


class FusedJit:
    """Like `FlatJit`, but on a CPU with oneDNN the program has fused convolutions; see `layers/cpu/fusion.py`.

    The first call with a pytree folds its weights. The folded weights are kept until the pytree is deleted. A call
    inside another function's `jax.jit`, `jax.grad` or `jax.vmap` has no fused convolutions.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function, self._plain = function, FlatJit(function)
        #: Programs by static part and by the array's shape and dtype; pytrees with the same static part share them.
        self._programs: dict[Any, Any] = {}
        #: The pytrees of earlier calls, by identity.
        self._trees: dict[int, _Tree] = {}

    def __call__(self, tree: Any, array: Any) -> Any:
        """Returns the function's result."""
        known = self._trees.get(id(tree)) or self._add(tree)
        if not known.is_fused or isinstance(array, Tracer):
            return self._plain(tree, array)
        program, constants = known.calls.get((array.shape, array.dtype)) or self._compile(known, array)
        return program(constants, array)

    def _add(self, tree: Any) -> _Tree:
        arrays, static = partition(tree)
        if not is_concrete(arrays):
            return _Tree([], static, is_fused=False)
        is_cpu = jax.default_backend() == "cpu" and onednn.is_available()
        is_fused = is_cpu and can_use_primitives() and all(map(_is_finite, arrays))
        known = self._trees[id(tree)] = _Tree(arrays if is_fused else [], static, is_fused)
        weakref.finalize(tree, self._trees.pop, id(tree), None)
        return known

    def _compile(self, known: _Tree, array: Any) -> Any:
        # Imported here, because it needs private parts of JAX.
        from .layers.cpu.fused_program import FusedProgram

        def call(arrays: list[Any], array: Any) -> Any:
            return self._function(combine(arrays, known.static), array)

        key = known.static, array.shape, array.dtype
        if key not in self._programs:
            self._programs[key] = FusedProgram(call, known.arrays, array)
        program = self._programs[key]
        known.calls[array.shape, array.dtype] = program, program.constants(known.arrays, known.folded)
        return known.calls[array.shape, array.dtype]


def _is_finite(array: Any) -> bool:
    """Returns whether all numbers are finite; oneDNN's ReLU would turn NaN into zero, and hide that a run diverged."""
    is_float = array is not None and jnp.issubdtype(array.dtype, jnp.floating)
    return not is_float or bool(np.isfinite(np.asarray(array, np.float32)).all())
