"""Replacements for `eqx.filter_jit` that do not wait for the result, and set the compiler options that training
needs."""

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

__all__ = [
    "DETERMINISTIC",
    "AsyncJit",
    "FlatJit",
    "Option",
    "Static",
    "async_jit",
    "combine",
    "is_concrete",
    "is_traced",
    "jit_once",
    "jit_with_barriers",
    "partition",
]

Option: TypeAlias = tuple[str, str | int | bool]

#: Makes jaxlib 0.10 compute sums and matrix products on a CPU with YNNPACK, which is faster for these than XLA. YNNPACK
#: is slower for convolutions and for chains of elementwise operations such as `layers/cpu/depthwise.py`, so XLA still
#: computes those.
_USE_YNNPACK: Option = (
    "xla_cpu_experimental_ynn_fusion_type",
    "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
)
#: Keeps the optimization barriers that `layers/cpu/barrier.py` needs, by disabling the pass in which XLA's CPU compiler
#: removes them.
_KEEP_BARRIERS: Option = ("xla_disable_hlo_passes", "cse_barrier_expander")
#: Makes a GPU add numbers in a fixed order, and choose algorithms without timing them. CPUs always do both.
DETERMINISTIC: Option = ("xla_gpu_deterministic_ops", True)
#: Optimization level 0 (of 0 to 3), and the older code generator for loops. Both make compilation faster on a CPU.
_COMPILE_FAST: tuple[Option, ...] = (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False))

#: If a call has waited longer than this for a result, the next call waits for its own result.
_LONG_CALL_SECONDS = 0.1


def async_jit(function: Callable[..., Any], *, donate: bool = False, deterministic: bool = False) -> "AsyncJit":
    """Compiles `function` to run many times; see `AsyncJit`.

    **Arguments:**

    - `donate`: whether the result may reuse the memory of all arguments except the first.
    - `deterministic`: whether a GPU must use operations that give the same bits each time.
    """
    options = [DETERMINISTIC] if deterministic else []
    if jax.default_backend() == "cpu":
        options.append(_KEEP_BARRIERS)
        if getattr(jaxlib, "__version__", "").startswith("0.10."):
            options.append(_USE_YNNPACK)
    return AsyncJit(function, donate=donate, compiler_options=_select_supported(options))


def jit_with_barriers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function` for a CPU and a jaxlib that can call oneDNN; the program keeps its optimization barriers."""
    # These jaxlibs are tested with the option, so no small program is compiled to find out whether it is supported.
    return jax.jit(function, compiler_options=dict([_KEEP_BARRIERS]))


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a jitted function for a single call.

    On a CPU, it is compiled with little optimization, so that compilation is fast.
    """
    options = _select_supported(_COMPILE_FAST) if jax.default_backend() == "cpu" else {}
    # Equinox passes further keywords on to `jax.jit`, but its type annotations do not show that.
    jit: Any = eqx.filter_jit
    return jit(function, compiler_options=options)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A pytree's structure, and those of its leaves that are not arrays; a new value compiles a new program."""

    structure: Any
    leaves: tuple[Any, ...]


class _Partition(NamedTuple):
    """A pytree (`tree`) and its two parts: `arrays` has `None` in place of each leaf that is not an array; `static` has
    those leaves and the structure."""

    tree: Any
    arrays: list[Any]
    static: Static


class AsyncJit:
    """Like `eqx.filter_jit`, but returns before the result is computed.

    `eqx.filter_jit` waits for its result, so the device idles while Python prepares the next call. Here each call waits
    for the previous one instead: the device computes one call while Python prepares the next. Two calls in flight need
    the memory of both. If a call has waited long, Python's time is negligible, so the next call waits for its own
    result.

    Pytrees are immutable, so the first argument and the previous result are not flattened again if the next call passes
    the same objects. Threads may call one `AsyncJit` at the same time; each thread has its own previous call.
    """

    def __init__(self, function: Callable[..., Any], *, donate: bool, compiler_options: dict[str, Any]) -> None:
        jit: Any = eqx.filter_jit
        donated = "all-except-first" if donate else "none"
        #: `lower(*arguments).compile()` returns the compiled program for inspection.
        self.lower = jit(function, donate=donated, compiler_options=compiler_options).lower

        def call(first: list[Any], rest: list[list[Any]], static: tuple[Static, ...]) -> Any:
            # With jit disabled, NumPy arrays arrive here unconverted.
            inputs = [
                [jnp.asarray(array) if isinstance(array, np.ndarray) else array for array in arrays]
                for arrays in (first, *rest)
            ]
            out = function(*(combine(*parts) for parts in zip(inputs, static, strict=True)))
            return partition(out), jnp.zeros(())

        call.__name__ = getattr(function, "__name__", call.__name__)  # the name appears in traces and messages
        donate_argnums = (1,) if donate else ()
        self._call = jax.jit(call, static_argnums=2, donate_argnums=donate_argnums, compiler_options=compiler_options)
        self._thread = _PreviousCall()

    def __call__(self, first: Any, *rest: Any) -> Any:
        """Starts the compiled function and returns its result, which the device may not have computed yet."""
        previous = self._thread
        if first is not previous.first.tree:
            previous.first = _Partition(first, *partition(first))
        head, last = previous.first, previous.result
        parts = [last if argument is last.tree else _Partition(argument, *partition(argument)) for argument in rest]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable*")
            static = (head.static, *(part.static for part in parts))
            (arrays, result_static), end = self._call(head.arrays, [part.arrays for part in parts], static)
        began = monotonic()
        (end if previous.is_long else previous.end).block_until_ready()
        previous.end, previous.is_long = end, _waits_for_each_call() or monotonic() - began > _LONG_CALL_SECONDS
        previous.result = _Partition(combine(arrays, result_static), arrays, result_static)
        return previous.result.tree


class FlatJit:
    """Like `eqx.filter_jit`, but for functions `(pytree, array)` that are called many times with the same pytree.

    The pytree is flattened only once, since pytrees are immutable. This saves time because flattening a small network
    takes longer than running it.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function
        self._compiled: dict[Static, Callable[..., Any]] = {}
        self._thread = threading.local()

    def __call__(self, tree: Any, array: Any) -> Any:
        """Returns the function's result."""
        previous, arrays, call = getattr(self._thread, "latest", (None, None, None))
        if call is None or tree is not previous:
            arrays, static = partition(tree)
            call = self._compiled.setdefault(static, jax.jit(self._bind(static)))
            if is_concrete(arrays) and not is_traced(array):
                self._thread.latest = tree, arrays, call
        return call(arrays, array)

    def _bind(self, static: Static) -> Callable[..., Any]:
        def call(arrays: list[Any], array: Any) -> Any:
            return self._function(combine(arrays, static), jnp.asarray(array))

        call.__name__ = self._function.__name__  # the name appears in traces and messages
        return call


class _PreviousCall(threading.local):
    """The latest call of an `AsyncJit` in one thread: its first argument, its result, and whether it waited long."""

    def __init__(self) -> None:
        self.first = self.result = _Partition(None, *partition(None))
        self.end, self.is_long = jnp.zeros(()), True


@cache
def _waits_for_each_call() -> bool:
    """Returns whether only one call may be in flight.

    If JAX splits a CPU into several devices, they share its threads. With two calls in flight, a sum over the devices
    can then wait forever for a device, because the thread of that device is waiting in the other call.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1


def is_concrete(arrays: list[Any]) -> bool:
    """Returns whether all arrays have values, so that none is a JAX tracer."""
    try:
        return all(leaf is None or leaf.devices() for leaf in arrays)
    except jax.errors.ConcretizationTypeError:
        return False


def is_traced(array: Any) -> bool:
    """Returns whether an array is a JAX tracer; the array may be NumPy's."""
    return isinstance(array, jax.Array) and not is_concrete([array])


def partition(tree: Any) -> tuple[list[Any], Static]:
    """Returns a pytree's leaves, with `None` in place of those that are not arrays, and its static part."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
    others = tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)
    return arrays, Static(structure, others)


def combine(arrays: list[Any], static: Static) -> Any:
    """Returns the pytree that `partition` took apart."""
    leaves = [other if array is None else array for array, other in zip(arrays, static.leaves, strict=True)]
    return jax.tree.unflatten(static.structure, leaves)


def _select_supported(options: Any) -> dict[str, str | int | bool]:
    """Returns a new dictionary of the options that the default device's compiler supports."""
    return {name: value for name, value in options if _is_supported(name, value)}


@cache
def _is_supported(name: str, value: str | int | bool) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
