"""An optimization barrier in programs for a CPU; the identity on other platforms."""

from jax import lax
from jaxtyping import Array

from .availability import can_use_primitives, is_plain

__all__ = ["keep_on_cpu"]


def keep_on_cpu(x: Array, only_without_onednn: bool = False) -> Array:
    """Returns `x`; in a program for a CPU, XLA computes `x` once, before all operations that use it.

    **Arguments:**

    - `only_without_onednn`: whether to omit the barrier if oneDNN is available.
    """
    if is_plain():
        return x
    if can_use_primitives():
        from .barrier_primitive import bind_barrier

        return bind_barrier(x, only_without_onednn)
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)
