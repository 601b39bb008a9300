"""The primitive of `barrier.keep_on_cpu`: an optimization barrier on a CPU, the identity on other platforms."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array

from .primitive import make_primitive

__all__ = ["bind_barrier"]


def bind_barrier(x: Array, only_without_onednn: bool) -> Array:
    """Returns `x`; adds an optimization barrier in a program for a CPU."""
    return _barrier.bind(x, only_without_onednn=only_without_onednn)


def _keep(x: Array, *, only_without_onednn: bool, uses_onednn: bool) -> Array:
    return x if only_without_onednn and uses_onednn else lax.optimization_barrier(x)


def _batch(operands: Any, axes: Any, **parameters: bool) -> tuple[Array, int]:
    return _barrier.bind(*operands, **parameters), axes[0]


_barrier = make_primitive("eqxcnn_barrier_on_cpu", _keep, lambda x, **_: x, _batch)
_barrier.def_impl(lambda x, **_: jnp.asarray(x))  # outside of jit, there is nothing to optimize
ad.deflinear2(_barrier, lambda out, _, **parameters: [_barrier.bind(out, **parameters)])
