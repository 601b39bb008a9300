"""Rotation by a random angle."""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ranges import Range, check_arguments
from ..types import Augment, Image, Key
from .geometry import linear_taps

__all__ = ["random_rotation", "rotate_image"]


@check_arguments
def random_rotation(degrees: Annotated[float, Range(0, 360)], fill: Annotated[float, Range(0, 1)] = 0.0) -> Augment:
    """Rotates an image around its center by an angle uniform in [-`degrees`, `degrees`]; see `rotate_image`.

    **Arguments:**

    - `degrees`: the largest angle.
    - `fill`: the value of the corners that the rotated image leaves empty, from 0 to 1.
    """

    def rotate(image: Image, key: Key) -> Image:
        return rotate_image(image, jax.random.uniform(key, minval=-degrees, maxval=degrees), fill)

    return rotate


def rotate_image(image: Image, degrees: Float[Array, ""], fill: float | int = 0.0) -> Image:
    """Rotates an image counter-clockwise around its center, as Pillow's `Image.rotate(degrees, BILINEAR)` does.

    **Arguments:**

    - `image`: `[h w c]`.
    - `degrees`: the angle; a multiple of 90 moves the pixels of a square image without interpolation.
    - `fill`: the value of new pixels whose source lies outside the image.
    """
    height, width, _ = image.shape
    cos, sin = _direction(degrees)
    row = jnp.arange(height, dtype=jnp.float32)[:, None] + (1 - height) / 2
    column = jnp.arange(width, dtype=jnp.float32) + (1 - width) / 2
    # `(x, y)` is the source of the center of each new pixel; the center of the first source pixel is (0.5, 0.5).
    x, y = width / 2 + cos * column - sin * row, height / 2 + sin * column + cos * row
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)

    left, right, across = linear_taps(x - 0.5, width)
    top, bottom, along = linear_taps(y - 0.5, height)
    pixels, across, along = image.astype(jnp.float32), across[:, :, None], along[:, :, None]
    upper = pixels[top, left] + (pixels[top, right] - pixels[top, left]) * across
    lower = pixels[bottom, left] + (pixels[bottom, right] - pixels[bottom, left]) * across
    return jnp.where(is_inside[:, :, None], upper + (lower - upper) * along, fill).astype(image.dtype)


def _direction(degrees: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns cosine and sine of an angle, exact at multiples of 90 degrees."""
    quarters = jnp.round(degrees / 90)
    rest = jnp.deg2rad(degrees - 90 * quarters)
    cos, sin = jnp.cos(rest), jnp.sin(rest)
    turns = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos]), jnp.stack([-cos, -sin]), jnp.stack([sin, -cos])])
    cos, sin = turns[quarters.astype(jnp.int32) % 4]
    return cos, sin
