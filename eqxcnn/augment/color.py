"""Random changes of color: each factory gives a function of one image `[h w c]` in [0, 1] and a key, shape kept.

Definitions and names of arguments are those of `tf.image`, but `color_jitter` is torchvision's. Every result is clipped
to [0, 1].
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..errors import InputError
from ..types import Augment, Image, Key

#: The orders of brightness (0), contrast (1) and saturation (2).
_ORDERS = tuple(itertools.permutations(range(3)))


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
    """Multiplies the saturation (of HSV) by one factor, uniform in [`lower`, `upper`]; a gray image stays as it is."""
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
    """Turns the hue (of HSV) by a share of the circle, uniform in [-`max_delta`, `max_delta`]; gray stays as it is."""
    if not 0 <= max_delta <= 0.5:
        raise InputError(f"`max_delta` (={max_delta}) is a share of the circle of hues: choose it from 0 to 0.5.")

    def turn(image: Image, key: Key) -> Image:
        return turned(image, jax.random.uniform(key, minval=-max_delta, maxval=max_delta))

    return turn


def color_jitter(
    brightness: float | int = 0, contrast: float | int = 0, saturation: float | int = 0, hue: float | int = 0
) -> Augment:
    """Changes four properties of color, in a random order: torchvision's `ColorJitter`, see `jittered`.

    **Arguments:**

    - `brightness`, `contrast`, `saturation`: each one's factor is uniform in [max(0, 1 - x), 1 + x].
    - `hue`: it turns by a share of the circle, uniform in [-`hue`, `hue`].
    """
    spans = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, span in spans.items():
        if span < 0:
            raise InputError(f"`{name}` (={span}) is how far a factor may lie from 1: choose 0 or more.")
    if not 0 <= hue <= 0.5:
        raise InputError(f"`hue` (={hue}) is a share of the circle of hues: choose it from 0 to 0.5.")
    least, most = (jnp.array([1 + sign * span for span in spans.values()], jnp.float32) for sign in (-1, 1))

    def jitter(image: Image, key: Key) -> Image:
        factors_key, hue_key, order_key = jax.random.split(key, 3)
        factors = jax.random.uniform(factors_key, (3,), minval=jnp.maximum(least, 0), maxval=most)
        delta = jax.random.uniform(hue_key, minval=-hue, maxval=hue) if hue else None
        return jittered(image, factors, delta, jax.random.randint(order_key, (), 0, 4 * len(_ORDERS)))

    return jitter


def jittered(image: Image, factors: Float[Array, "3"], delta: Float[Array, ""] | None, order: Int[Array, ""]) -> Image:
    """An image beside black, its mean gray and its own gray, with factors as in Pillow's `ImageEnhance`, and its hue.

    **Arguments:**

    - `image`: `[h w c]`; with one channel, only brightness and contrast change it.
    - `factors`: of brightness, contrast and saturation.
    - `delta`: the share of the circle by which the hue turns; `None` leaves it.
    - `order`: which of the 24: the hue turns after `order % 4` of the others, and these are in the order `order // 4`.
    """

    # Twice three blends, of which three have a factor of 1, around one turn of the hue: less work than to choose among
    # four operations four times, where `vmap` works out all sixteen.
    def blend(pixels: Image, step: tuple[Int[Array, ""], Float[Array, ""]]) -> tuple[Image, None]:
        which, factor = step
        gray = _gray(pixels)
        base = jnp.select([which == 0, which == 1], [jnp.zeros(()), gray.mean()], gray)
        # In this form a factor of 1, and gray beside itself, change nothing to the bit.
        return jnp.clip(pixels + (factor - 1) * (pixels - base), 0, 1), None

    blends = jnp.array(_ORDERS)[order // 4]
    is_before = jnp.arange(3) < order % 4
    pixels, _ = jax.lax.scan(blend, image.astype(jnp.float32), (blends, jnp.where(is_before, factors[blends], 1)))
    if delta is not None:
        pixels = turned(pixels, delta)
    pixels, _ = jax.lax.scan(blend, pixels, (blends, jnp.where(is_before, 1, factors[blends])))
    return pixels.astype(image.dtype)


def turned(image: Image, delta: Float[Array, ""]) -> Image:
    """An image whose hue (of HSV) is turned by a share of the circle; one channel has none."""
    if image.shape[-1] == 1:
        return image
    value, chroma = _value_and_chroma(image)
    hue = _hue(image, value, chroma) + 6 * delta

    # Channel by channel, as planes [h w]: a last axis of three keeps a CPU from vectorizing.
    def plane(shift: int) -> Float[Array, "h w"]:
        sector = hue + shift
        sector = sector - 6 * jnp.floor(sector / 6)
        return value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)

    return _clip(jnp.stack([plane(5), plane(3), plane(1)], -1), image)


def _planes(image: Image) -> Float[Array, "3 h w"]:
    """Red, green and blue."""
    if image.shape[-1] != 3:
        raise InputError(f"an image with {image.shape[-1]} channels has no hue or saturation: 1 or 3 are needed.")
    return jnp.moveaxis(image.astype(jnp.float32), -1, 0)


def _gray(image: Image) -> Float[Array, "h w 1"]:
    """ITU-R 601-2 luma; a gray image as it is."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = _planes(image)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, :, None]


def _value_and_chroma(image: Image) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """The greatest channel of each pixel, and how far the least lies below it."""
    red, green, blue = _planes(image)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    return value, value - jnp.minimum(jnp.minimum(red, green), blue)


def _hue(image: Image, value: Float[Array, "h w"], chroma: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Where each pixel lies on the circle of hues, in sixths of it: red 0, green 2, blue 4."""
    red, green, blue = _planes(image)
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
