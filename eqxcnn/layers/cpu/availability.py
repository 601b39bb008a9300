"""Determines whether layers may use the primitives of this package."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import jax
from jax.sharding import AxisType

__all__ = ["can_use_primitives", "is_plain", "plain_layers"]

_is_plain = ContextVar("_is_plain", default=False)


@contextmanager
def plain_layers() -> Iterator[None]:
    """In this context, layers are traced with plain JAX operations, which are the same for all platforms.

    The traced programs can be converted to ONNX: they have no barriers and none of the primitives of this package, and
    each pooling layer is a single `lax.reduce_window`. Functions that `jax.jit` has already traced do not change.
    """
    token = _is_plain.set(True)
    try:
        yield
    finally:
        _is_plain.reset(token)


def is_plain() -> bool:
    """Returns whether layers are traced inside `plain_layers`."""
    return _is_plain.get()


def can_use_primitives() -> bool:
    """Returns whether layers may use primitives while they are traced; otherwise they use plain JAX.

    Primitives are not allowed inside `jax.shard_map` or under a mesh with explicit axes: there, the type of an array
    includes its sharding, and the primitives have no rules for sharding.
    """
    if is_plain():
        return False
    return _has_primitives() and all(kind == AxisType.Auto for kind in jax.sharding.get_abstract_mesh().axis_types)


@cache
def _has_primitives() -> bool:
    """Returns whether the modules that define primitives can be imported: they need private parts of JAX."""
    try:
        from . import barrier_primitive, biased_convolution, convolution, product  # noqa: F401
    except ImportError:
        return False
    return True
