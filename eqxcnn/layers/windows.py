"""Pooling as a single JAX operation, for programs that are converted to ONNX."""

from collections.abc import Sequence

import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..types import Image
from .sizes import Pair

__all__ = ["reduce_windows"]


def reduce_windows(
    image: Image, window: Pair, stride: Pair, edges: Sequence[tuple[int, int]], fill: float
) -> Float[Array, "h2 w2 c"]:
    """Returns the sum of each window if `fill` is 0, or its largest value if `fill` is minus infinity.

    **Arguments:**

    - `window`, `stride`: `(height, width)` pairs.
    - `edges`: the pixels to add before and after the height and the width. A negative number at the end of an axis
      drops the pixels that no window covers.
    - `fill`: the value of added pixels.
    """
    kept = image[tuple(slice(size + min(after, 0)) for size, (_, after) in zip(image.shape, edges, strict=False))]
    padding = [*((before, max(after, 0)) for before, after in edges), (0, 0)]
    combine = lax.max if fill else lax.add
    return lax.reduce_window(kept, np.asarray(fill, image.dtype), combine, (*window, 1), (*stride, 1), padding)
