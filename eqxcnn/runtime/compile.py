"""How functions are compiled: `eqx.filter_jit` with what this machine's compiler needs to be quick."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib.version

#: jaxlib 0.10 hands work on a CPU to YNNPACK, a library which does sums and matrix products faster than XLA. It is slow
#: at convolutions and at chains of elementwise operations, such as those of `layers/depthwise.py`: they stay XLA's.
_LIBRARY = ("REDUCE", "INDIVIDUAL_DOT")
_THREADED = ("xla_cpu_experimental_ynn_fusion_type", ",".join(f"LIBRARY_FUSION_TYPE_{each}" for each in _LIBRARY))
#: XLA's CPU compiler drops barriers before it fuses, unless this pass is left out: `layers/conv.py` needs its own kept.
_KEPT_BARRIERS = ("xla_disable_hlo_passes", "cse_barrier_expander")
#: Sums in one order, and no choice of algorithms by how long they took this time. CPUs do so anyway.
DETERMINISTIC = ("xla_gpu_deterministic_ops", True)
#: A function that runs once is not worth the seconds that the highest level, 3, and the newer way to emit loops take.
_LITTLE_OPTIMIZATION = (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False))

#: Seconds that a call computes which is waited for at once.
_LONG = 0.1


def async_jit(function: Callable[..., Any], *, donate: bool = False, deterministic: bool = False) -> Callable[..., Any]:
    """`function` compiled to run many times.

    **Arguments:**

    - `donate`: whether the memory of all arguments but the first is used again.
    - `deterministic`: whether a GPU may only choose what gives the same bits each time.
    """
    options = _known(*DETERMINISTIC) if deterministic else {}
    if jax.default_backend() == "cpu":
        options |= _known(*_KEPT_BARRIERS)
        if jaxlib.version.__version__.startswith("0.10."):
            options |= _known(*_THREADED)
    return AsyncJit(function, donate=donate, compiler_options=options)


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled to run a single time."""
    options = {}
    if jax.default_backend() == "cpu":
        for name, value in _LITTLE_OPTIMIZATION:
            options |= _known(name, value)
    # Equinox hands further keywords on to `jax.jit`, which its types do not tell.
    jit: Any = eqx.filter_jit
    return jit(function, compiler_options=options)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Fixed:
    """What is no array of a function's arguments or results: part of what is compiled."""

    structure: Any
    others: tuple[Any, ...]


class _Parts(NamedTuple):
    """A tree, and what it was split into."""

    tree: Any
    arrays: list[Any]
    fixed: _Fixed

    @classmethod
    def of(cls, tree: Any) -> "_Parts":
        return cls(tree, *_split(tree))


class AsyncJit:
    """`eqx.filter_jit`, but for the wait: that one returns when all is computed, and the device is idle until the next
    call. This one waits for the call before, so that one computes while Python prepares the next, and no more than one.
    Two take the memory of two: where one takes so long that Python's time is nothing beside it, each is waited for.
    What was given first and what the last call gave are not taken apart again: nobody changes a pytree in place.
    """

    def __init__(self, function: Callable[..., Any], *, donate: bool, compiler_options: dict[str, Any]) -> None:
        jit: Any = eqx.filter_jit
        kind = "all-except-first" if donate else "none"
        #: For a look at what is compiled.
        self.lower = jit(function, donate=kind, compiler_options=compiler_options).lower

        def called(first: list[Any], rest: list[list[Any]], fixed: tuple[_Fixed, ...]) -> Any:
            out = function(*(_joined(*each) for each in zip((first, *rest), fixed, strict=True)))
            return _split(out), jnp.zeros(())

        called.__name__ = getattr(function, "__name__", called.__name__)  # in traces and messages
        given = (1,) if donate else ()
        self._call = jax.jit(called, static_argnums=2, donate_argnums=given, compiler_options=compiler_options)
        self._begun, self._is_long = jnp.zeros(()), True
        self._first, self._last = _Parts.of(None), _Parts.of(None)

    def __call__(self, first: Any, *rest: Any) -> Any:
        """Calls the compiled function; returns before the device has finished."""
        if first is not self._first.tree:
            self._first = _Parts.of(first)
        parts = [self._last if each is self._last.tree else _Parts.of(each) for each in rest]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable*")
            fixed = (self._first.fixed, *(each.fixed for each in parts))
            (arrays, same), end = self._call(self._first.arrays, [each.arrays for each in parts], fixed)
        began = monotonic()
        (end if self._is_long else self._begun).block_until_ready()
        self._begun, self._is_long = end, monotonic() - began > _LONG
        self._last = _Parts(_joined(arrays, same), arrays, same)
        return self._last.tree


def _split(tree: Any) -> tuple[list[Any], _Fixed]:
    """The arrays of a tree, with nothing in the places of its other leaves, and all the rest."""
    leaves, structure = jax.tree.flatten(tree)
    are = [eqx.is_array(leaf) for leaf in leaves]
    arrays = [leaf if is_array else None for leaf, is_array in zip(leaves, are, strict=True)]
    others = tuple(None if is_array else leaf for leaf, is_array in zip(leaves, are, strict=True))
    return arrays, _Fixed(structure, others)


def _joined(arrays: list[Any], fixed: _Fixed) -> Any:
    """The tree that was split."""
    leaves = [other if array is None else array for array, other in zip(arrays, fixed.others, strict=True)]
    return jax.tree.unflatten(fixed.structure, leaves)


@cache
def _known(name: str, value: str | int) -> dict[str, str | int]:
    """An option of XLA's for the default device, or none where its compiler does not know it."""
    options = {name: value}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
