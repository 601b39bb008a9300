"""Sums and largest values of windows that lie side by side and fill an image, quick forward and backward.

Forward all windows' first pixels meet all second ones and so on. Backward each pixel looks up what its window was
given: one pass over the image, where JAX's own rule for slices has XLA put the image together from its parts.
"""

from functools import partial, reduce
from math import prod

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...types import Image


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def tile_sums(x: Image, tile: tuple[int, int]) -> Float[Array, "h2 w2 c"]:
    """The sum of each window of `tile` pixels, height and width, which must divide those of the image."""
    return reduce(jnp.add, _by_pixel(x, tile))


@tile_sums.defjvp
def _(tile: tuple[int, int], values: tuple[Array], changes: tuple[Array]) -> tuple[Array, Array]:
    return tile_sums(values[0], tile), _tiled(changes[0], tile).sum((1, 3))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def tile_maxima(x: Image, tile: tuple[int, int]) -> Float[Array, "h2 w2 c"]:
    """The largest value of each window likewise; of several that tie, the first has the gradient."""
    return reduce(jnp.maximum, _by_pixel(x, tile))


@tile_maxima.defjvp
def _(tile: tuple[int, int], values: tuple[Array], changes: tuple[Array]) -> tuple[Array, Array]:
    largest, *others = _by_pixel(values[0], tile)
    winner = jnp.zeros(largest.shape, jnp.int8)
    for place, each in enumerate(others, 1):
        winner = jnp.where(each > largest, jnp.int8(place), winner)
        largest = jnp.maximum(largest, each)
    # Or else XLA works the winner out anew for each pixel.
    winner = lax.optimization_barrier(winner)
    places = jnp.arange(prod(tile), dtype=winner.dtype).reshape(tile[0], 1, tile[1], 1)
    wins = winner[:, None, :, None] == places
    return largest, jnp.where(wins, _tiled(changes[0], tile), 0).sum((1, 3))


def _by_pixel(x: Image, tile: tuple[int, int]) -> list[Array]:
    """The first pixel of every window, the second one and so on, by row and column."""
    tiles = _tiled(x, tile)
    return [tiles[:, row, :, column] for row in range(tile[0]) for column in range(tile[1])]


def _tiled(x: Image, tile: tuple[int, int]) -> Float[Array, "h2 kh w2 kw c"]:
    height, width, channels = x.shape
    return x.reshape(height // tile[0], tile[0], width // tile[1], tile[1], channels)
