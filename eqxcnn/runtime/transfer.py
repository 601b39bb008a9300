"""Copies NumPy arrays to a device without compilation."""

import jax
import numpy as np
from jaxtyping import Array

__all__ = ["to_device"]


def to_device(array: np.ndarray | np.generic) -> Array:
    """Copies a NumPy array to the default device.

    `jnp.array` would compile a program for each shape and dtype.
    """
    # A copy, because JAX might otherwise keep using the memory of the given array.
    return jax.device_put(np.array(array))
