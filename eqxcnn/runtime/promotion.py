"""JAX's type and rank promotion during training."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

__all__ = ["standard_promotion"]


@contextmanager
def standard_promotion() -> Iterator[None]:
    """Context manager and decorator: sets JAX's standard promotion of dtypes and ranks, regardless of the user's
    settings.

    optax and `jax.image` do not run with `JAX_NUMPY_DTYPE_PROMOTION=strict` or `JAX_NUMPY_RANK_PROMOTION=raise`.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
