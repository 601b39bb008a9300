"""Whether layers may use the primitives of this package."""

from functools import cache

import jax
from jax.sharding import AxisType

__all__ = ["can_use_primitives"]


def can_use_primitives() -> bool:
    """Returns whether layers may use primitives while they are traced; otherwise they use plain JAX.

    Inside `jax.shard_map`, and under a mesh with explicit axes, the types of arrays include their sharding, for which
    the primitives have no rules.
    """
    return _has_primitives() and all(kind == AxisType.Auto for kind in jax.sharding.get_abstract_mesh().axis_types)


@cache
def _has_primitives() -> bool:
    """Returns whether the modules that define primitives can be imported: they need private parts of JAX."""
    try:
        from . import barrier_primitive, biased_convolution, convolution, product  # noqa: F401
    except ImportError:
        return False
    return True
