"""How the step is compiled: `eqx.filter_jit` with what this machine's compiler needs to be quick."""

from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jaxlib.version

#: jaxlib 0.10 hands CPU convolutions to a library that runs them on one thread; without it they use all.
_THREADED_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@cache
def compiler_options() -> dict[str, str]:
    """XLA's options for the default device; none where the compiler does not know them."""
    if jax.default_backend() != "cpu" or not jaxlib.version.__version__.startswith("0.10."):
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=_THREADED_CONVOLUTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _THREADED_CONVOLUTIONS


def compiled(function: Callable[..., Any], *, donate: bool = False) -> Callable[..., Any]:
    """`function` under `eqx.filter_jit`; with `donate`, the memory of all arguments but the first is used again."""
    # Equinox hands further keywords on to `jax.jit`, which its types do not tell.
    jit: Any = eqx.filter_jit
    return jit(function, donate="all-except-first" if donate else "none", compiler_options=compiler_options() or None)
