"""Copies NumPy arrays to a device without compiling anything."""

import jax
import numpy as np
from jaxtyping import Array

__all__ = ["to_device"]


def to_device(array: np.ndarray | np.generic) -> Array:
    """Returns a copy of a NumPy array on the default device; `jnp.array` compiles a program per shape and dtype."""
    # JAX may use the memory of the array that it is given.
    return jax.device_put(np.array(array))
