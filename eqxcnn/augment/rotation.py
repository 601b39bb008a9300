"""Turns by any angle: a factory of a function of one image `[h w c]` and a key, shape kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..types import Augment, Image, Key
from .geometry import between


def random_rotation(degrees: float | int, fill: float | int = 0.0) -> Augment:
    """Turns an image around its middle by an angle uniform in [-`degrees`, `degrees`], its size kept: see `rotated`.

    **Arguments:**

    - `degrees`: the greatest angle, either way.
    - `fill`: what the corners become that the turned image leaves empty, from 0 to 1.
    """
    if degrees < 0:
        raise InputError(f"`degrees` (={degrees}) is the greatest angle either way: choose 0 or more.")
    if not 0 <= fill <= 1:
        raise InputError(f"`fill` (={fill}) is a pixel in [0, 1]: choose it from 0 to 1.")

    def rotate(image: Image, key: Key) -> Image:
        return rotated(image, jax.random.uniform(key, minval=-degrees, maxval=degrees), fill)

    return rotate


def rotated(image: Image, degrees: Float[Array, ""], fill: float | int = 0.0) -> Image:
    """Turns an image counter-clockwise around its middle, bilinear: PIL's `Image.rotate(degrees, BILINEAR)`.

    **Arguments:**

    - `image`: `[h w c]`.
    - `degrees`: the angle; a whole number of quarter turns moves the pixels of a square image as they are.
    - `fill`: what pixels become whose middle comes from outside the image.
    """
    height, width, _ = image.shape
    cos, sin = _direction(degrees)
    row = jnp.arange(height, dtype=jnp.float32)[:, None] + (1 - height) / 2
    column = jnp.arange(width, dtype=jnp.float32) + (1 - width) / 2
    # Where the middle of each new pixel comes from; that of the first old one lies at half a pixel.
    x, y = width / 2 + cos * column - sin * row, height / 2 + sin * column + cos * row
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)

    left, right, across = between(x - 0.5, width)
    top, bottom, along = between(y - 0.5, height)
    pixels, across, along = image.astype(jnp.float32), across[:, :, None], along[:, :, None]
    upper = pixels[top, left] + (pixels[top, right] - pixels[top, left]) * across
    lower = pixels[bottom, left] + (pixels[bottom, right] - pixels[bottom, left]) * across
    return jnp.where(is_inside[:, :, None], upper + (lower - upper) * along, fill).astype(image.dtype)


def _direction(degrees: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cosine and sine of an angle, without a rounding error at whole quarter turns."""
    quarters = jnp.round(degrees / 90)
    rest = jnp.deg2rad(degrees - 90 * quarters)
    cos, sin = jnp.cos(rest), jnp.sin(rest)
    turns = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos]), jnp.stack([-cos, -sin]), jnp.stack([sin, -cos])])
    cos, sin = turns[quarters.astype(jnp.int32) % 4]
    return cos, sin
