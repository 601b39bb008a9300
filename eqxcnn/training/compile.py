"""How functions are compiled: `eqx.filter_jit` with what this machine's compiler needs to be quick."""

from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jaxlib.version

#: jaxlib 0.10 hands work on a CPU to a library which does sums faster than XLA, but runs convolutions and products
#: on one thread, and is slow at chains of elementwise operations such as those of `layers/depthwise.py`.
_THREADED_CONVOLUTIONS = ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
#: XLA's CPU compiler drops barriers before it fuses, unless this pass is left out: `layers/conv.py` needs its own kept.
_KEPT_BARRIERS = ("xla_disable_hlo_passes", "cse_barrier_expander")
#: Sums in one order, and no choice of algorithms by how long they took this time. CPUs do so anyway.
DETERMINISTIC = ("xla_gpu_deterministic_ops", True)
#: A function that runs once is not worth the seconds that the highest level, 3, and the newer way to emit loops take.
_LITTLE_OPTIMISATION = (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False))


def compiled(function: Callable[..., Any], *, donate: bool = False, deterministic: bool = False) -> Callable[..., Any]:
    """`function` compiled to run many times.

    **Arguments:**

    - `donate`: whether the memory of all arguments but the first is used again.
    - `deterministic`: whether a GPU may only choose what gives the same bits each time.
    """
    options = _known(*DETERMINISTIC) if deterministic else {}
    if jax.default_backend() == "cpu":
        options |= _known(*_KEPT_BARRIERS)
        if jaxlib.version.__version__.startswith("0.10."):
            options |= _known(*_THREADED_CONVOLUTIONS)
    return _jit(function, donate="all-except-first" if donate else "none", compiler_options=options)


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled to run a single time."""
    options = {}
    if jax.default_backend() == "cpu":
        for name, value in _LITTLE_OPTIMISATION:
            options |= _known(name, value)
    return _jit(function, compiler_options=options)


def _jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # Equinox hands further keywords on to `jax.jit`, which its types do not tell.
    jit: Any = eqx.filter_jit
    return jit(function, **options)


@cache
def _known(name: str, value: str | int) -> dict[str, str | int]:
    """An option of XLA's for the default device, or none where its compiler does not know it."""
    options = {name: value}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
