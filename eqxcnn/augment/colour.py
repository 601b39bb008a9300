"""Random changes of colour: each factory gives a function of one image `[h w c]` in [0, 1] and a key, shape kept.

Definitions and names of arguments are those of `tf.image`. Every result is clipped to [0, 1].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..types import Augment, Image, Key


def brightness(delta: float | int) -> Augment:
    """Adds `delta`, from -1 to 1, to every pixel of every image: nothing is random."""
    if not -1 <= delta <= 1:
        raise InputError(f"`delta` (={delta}) is added to pixels in [0, 1]: choose it from -1 to 1.")

    def brighten(image: Image, key: Key) -> Image:
        return _clip(image + delta, image)

    return brighten


def random_brightness(max_delta: float | int) -> Augment:
    """Adds one number, uniform in [-`max_delta`, `max_delta`], to every pixel."""
    if not 0 <= max_delta <= 1:
        raise InputError(f"`max_delta` (={max_delta}) is added to pixels in [0, 1]: choose it from 0 to 1.")

    def brighten(image: Image, key: Key) -> Image:
        return _clip(image + jax.random.uniform(key, minval=-max_delta, maxval=max_delta), image)

    return brighten


def random_contrast(lower: float | int, upper: float | int) -> Augment:
    """Multiplies the distance of every pixel from its channel's mean by one factor, uniform in [`lower`, `upper`]."""
    _check_factors(lower, upper)

    def contrast(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        # The barrier keeps XLA from merging the two sums into one, which is three times slower on a CPU.
        rows = jax.lax.optimization_barrier(image.astype(jnp.float32).sum(0))
        mean = rows.sum(0) / (height * width)
        return _clip((image - mean) * _factor(key, lower, upper) + mean, image)

    return contrast


def random_saturation(lower: float | int, upper: float | int) -> Augment:
    """Multiplies the saturation (of HSV) by one factor, uniform in [`lower`, `upper`]; a grey image stays as it is."""
    _check_factors(lower, upper)

    def saturate(image: Image, key: Key) -> Image:
        if image.shape[-1] == 1:
            return image
        value, chroma = _value_and_chroma(image)
        # At a fixed hue and value, saturation only scales how far the channels lie below the greatest one.
        most = value / jnp.where(chroma > 0, chroma, 1)
        factor = jnp.minimum(_factor(key, lower, upper), most)[..., None]
        return _clip(value[..., None] - (value[..., None] - image) * factor, image)

    return saturate


def random_hue(max_delta: float | int) -> Augment:
    """Turns the hue (of HSV) by a share of the circle, uniform in [-`max_delta`, `max_delta`]; grey stays as it is."""
    if not 0 <= max_delta <= 0.5:
        raise InputError(f"`max_delta` (={max_delta}) is a share of the circle of hues: choose it from 0 to 0.5.")

    def turn(image: Image, key: Key) -> Image:
        if image.shape[-1] == 1:
            return image
        value, chroma = _value_and_chroma(image)
        delta = jax.random.uniform(key, minval=-max_delta, maxval=max_delta)
        hue = _hue(image, value, chroma) + 6 * delta

        # Channel by channel, as planes [h w]: a last axis of three keeps a CPU from vectorising.
        def plane(shift: int) -> Float[Array, "h w"]:
            sector = hue + shift
            sector = sector - 6 * jnp.floor(sector / 6)
            return value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)

        return _clip(jnp.stack([plane(5), plane(3), plane(1)], -1), image)

    return turn


def _value_and_chroma(image: Image) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """The greatest channel of each pixel, and how far the least lies below it."""
    if image.shape[-1] != 3:
        raise InputError(f"an image with {image.shape[-1]} channels has no hue or saturation: 1 or 3 are needed.")
    red, green, blue = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    return value, value - jnp.minimum(jnp.minimum(red, green), blue)


def _hue(image: Image, value: Float[Array, "h w"], chroma: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Where each pixel lies on the circle of hues, in sixths of it: red 0, green 2, blue 4."""
    red, green, blue = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    unit = jnp.where(chroma > 0, chroma, 1)
    rest = jnp.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit)
    return jnp.where(value == red, (green - blue) / unit, rest)


def _factor(key: Key, lower: float | int, upper: float | int) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=lower, maxval=upper)


def _check_factors(lower: float | int, upper: float | int) -> None:
    if not 0 <= lower <= upper:
        raise InputError(f"`lower` (={lower}) and `upper` (={upper}) bound a factor: 0 <= lower <= upper.")


def _clip(pixels: Image, image: Image) -> Image:
    return jnp.clip(pixels, 0, 1).astype(image.dtype)
