"""Sum and max pooling over windows that cover the image exactly and without overlap, with fast gradients on a CPU.

The forward pass splits the image into one array per position in the window, and combines these arrays elementwise. In
the backward pass, each pixel reads the gradient of its window, in one pass over the image. JAX's own gradient of the
slices would write one image per position and add or concatenate these images.
"""

from functools import partial, reduce
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...types import Image
from ..sizes import Pair
from .barrier import keep_on_cpu

__all__ = ["max_windows", "sum_windows"]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def sum_windows(x: Image, window: Pair) -> Float[Array, "h2 w2 c"]:
    """Returns the sum of each window; the `window` (height, width) must divide the size of the image."""
    return reduce(jnp.add, _split_by_position(x, window))


@sum_windows.defjvp
def _(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_windows(primals[0], window), _split_into_windows(tangents[0], window).sum((1, 3))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_windows(x: Image, window: Pair) -> Float[Array, "h2 w2 c"]:
    """Returns the largest value of each window; if values tie, the first of them gets the gradient.

    The `window` (height, width) must divide the size of the image.
    """
    return reduce(jnp.maximum, _split_by_position(x, window))


@max_windows.defjvp
def _(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    largest, *others = _split_by_position(primals[0], window)
    winner = jnp.zeros(largest.shape, jnp.int8)
    for position, values in enumerate(others, 1):
        winner = jnp.where(values > largest, jnp.int8(position), winner)
        largest = jnp.maximum(largest, values)
    # Without the barrier, XLA recomputes the position of the largest value once for every pixel of the window.
    winner = keep_on_cpu(winner)
    positions = jnp.arange(prod(window), dtype=winner.dtype).reshape(1, window[0], 1, window[1], 1)
    is_winner = winner[:, None, :, None] == positions
    return largest, jnp.where(is_winner, _split_into_windows(tangents[0], window), 0).sum((1, 3))


def _split_by_position(x: Image, window: Pair) -> list[Array]:
    """Returns one array `[h2 w2 c]` per position in the window, row by row."""
    windows = _split_into_windows(x, window)
    return [windows[:, row, :, column] for row in range(window[0]) for column in range(window[1])]


def _split_into_windows(x: Image, window: Pair) -> Float[Array, "h2 kh w2 kw c"]:
    height, width, channels = x.shape
    return x.reshape(height // window[0], window[0], width // window[1], window[1], channels)
