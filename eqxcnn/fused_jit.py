"""Compiles a network for inference."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .layers.cpu import onednn
from .layers.cpu.availability import can_use_primitives
from .runtime.compile import FlatJit, Static, combine, is_concrete, is_traced, partition

__all__ = ["FusedJit"]


@dataclass(eq=False)
class _Tree:
    """What is known about a pytree.

    - `arrays`, `static`: its two parts, see `partition`; `arrays` is `None` if its programs have no fused convolutions.
    - `folded`: its folded weights, which the programs for all batch sizes share.
    - `calls`: the program and its constants, by the shape and dtype of the array.
    - `reference`: forgets the pytree when it is deleted.
    """

    arrays: list[Any] | None
    static: Static
    folded: dict[Any, Any] = field(default_factory=dict)
    calls: dict[Any, Any] = field(default_factory=dict)
    reference: Any = None


class FusedJit:
    """Like `FlatJit`, but on a CPU with oneDNN the program has fused convolutions; see `layers/cpu/fusion.py`.

    The first call with a pytree folds its weights. The folded weights are kept until the pytree is deleted. A call with
    a traced pytree or array, as in `jax.jit`, `jax.grad` and `jax.vmap`, has no fused convolutions.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function, self._plain = function, FlatJit(function)
        #: Programs by the types of all arguments; pytrees with the same types share them.
        self._programs: dict[Any, Any] = {}
        #: The pytrees of earlier calls, by identity.
        self._trees: dict[int, _Tree] = {}

    def __call__(self, tree: Any, array: Any) -> Any:
        """Returns the function's result."""
        known = self._trees.get(id(tree)) or self._add(tree)
        if known.arrays is None or is_traced(array):
            return self._plain(tree, array)
        call = known.calls.get((array.shape, array.dtype)) or self._compile(known, known.arrays, array)
        if call is _PLAIN:
            return self._plain(tree, array)
        program, constants = call
        return program(constants, array)

    def _add(self, tree: Any) -> _Tree:
        arrays, static = partition(tree)
        is_cpu = jax.default_backend() == "cpu" and onednn.is_available()
        is_fused = is_cpu and can_use_primitives() and is_concrete(arrays) and all(map(_is_finite, arrays))
        known, trees, key = _Tree(arrays if is_fused else None, static), self._trees, id(tree)
        try:
            known.reference = weakref.ref(tree, lambda _: trees.pop(key, None))
        except TypeError:  # a tuple, list or dictionary cannot tell when it is deleted
            return _Tree(None, static)
        if is_concrete(arrays):
            trees[key] = known
        return known

    def _compile(self, known: _Tree, arrays: list[Any], array: Any) -> Any:
        # Imported here, because it needs private parts of JAX.
        from .layers.cpu.fused_program import FusedProgram

        function, static = self._function, known.static

        def call(arrays: list[Any], array: Any) -> Any:
            return function(combine(arrays, static), array)

        call.__name__ = function.__name__
        types = tuple(None if each is None else (each.shape, each.dtype) for each in arrays)
        key = static, types, array.shape, array.dtype
        if key not in self._programs:
            self._programs[key] = FusedProgram(call, arrays, array)
        program = self._programs[key]
        constants = program.constants(arrays, known.folded)
        found = (program, constants) if all(map(_is_finite, constants)) else _PLAIN
        known.calls[array.shape, array.dtype] = found
        return found


#: Takes the place of a program and its constants if folded weights are not finite.
_PLAIN = object()


def _is_finite(array: Any) -> bool:
    """Returns whether all numbers are finite; oneDNN's ReLU would turn NaN into zero, and hide that a run diverged."""
    is_float = array is not None and jnp.issubdtype(array.dtype, jnp.floating)
    return not is_float or bool(np.isfinite(np.asarray(array, np.float32)).all())
