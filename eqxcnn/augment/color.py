"""Color augmentations: each factory returns a function of one image `[h w c]` in [0, 1] and a key.

Definitions and argument names follow `tf.image`; `color_jitter` follows torchvision. Results are clipped to [0, 1].
"""

import itertools
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..errors import InputError
from ..ranges import Range, check_arguments
from ..types import Augment, Image, Key

__all__ = [
    "brightness",
    "color_jitter",
    "jitter_color",
    "random_brightness",
    "random_contrast",
    "random_hue",
    "random_saturation",
    "shift_hue",
]

#: All orders of brightness (0), contrast (1) and saturation (2).
_ORDERS = tuple(itertools.permutations(range(3)))
#: A factor of brightness, contrast or saturation.
_Factor: TypeAlias = Annotated[float, Range(0, 100)]
#: A fraction of the hue circle.
_Hue: TypeAlias = Annotated[float, Range(0, 0.5)]


@check_arguments
def brightness(delta: Annotated[float, Range(-1, 1)]) -> Augment:
    """Adds `delta`, from -1 to 1, to every pixel of every image; not random."""

    def brighten(image: Image, key: Key) -> Image:
        return _clip_like(image + delta, image)

    return brighten


@check_arguments
def random_brightness(max_delta: Annotated[float, Range(0, 1)]) -> Augment:
    """Adds one number, uniform in [-`max_delta`, `max_delta`], to all pixels."""

    def brighten(image: Image, key: Key) -> Image:
        return _clip_like(image + jax.random.uniform(key, minval=-max_delta, maxval=max_delta), image)

    return brighten


@check_arguments
def random_contrast(lower: _Factor, upper: _Factor) -> Augment:
    """Scales the distance of every pixel from the mean of its channel by a factor uniform in [`lower`, `upper`]."""
    _check_order(lower, upper)

    def contrast(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        # The barrier keeps XLA from merging the two sums into one, which is three times slower on a CPU.
        rows = jax.lax.optimization_barrier(image.astype(jnp.float32).sum(0))
        mean = rows.sum(0) / (height * width)
        return _clip_like((image - mean) * _draw_factor(key, lower, upper) + mean, image)

    return contrast


@check_arguments
def random_saturation(lower: _Factor, upper: _Factor) -> Augment:
    """Scales the HSV saturation by a factor uniform in [`lower`, `upper`]; gray images stay unchanged."""
    _check_order(lower, upper)

    def saturate(image: Image, key: Key) -> Image:
        if image.shape[-1] == 1:
            return image
        value, chroma = _value_and_chroma(image)
        # At a fixed hue and value, saturation scales the distance of each channel from the largest channel.
        max_factor = value / jnp.where(chroma > 0, chroma, 1)
        factor = jnp.minimum(_draw_factor(key, lower, upper), max_factor)[..., None]
        return _clip_like(value[..., None] - (value[..., None] - image) * factor, image)

    return saturate


@check_arguments
def random_hue(max_delta: _Hue) -> Augment:
    """Shifts the HSV hue by a fraction of the circle, uniform in [-`max_delta`, `max_delta`]; gray stays unchanged."""

    def shift(image: Image, key: Key) -> Image:
        return shift_hue(image, jax.random.uniform(key, minval=-max_delta, maxval=max_delta))

    return shift


@check_arguments
def color_jitter(brightness: _Factor = 0, contrast: _Factor = 0, saturation: _Factor = 0, hue: _Hue = 0) -> Augment:
    """Changes brightness, contrast, saturation and hue in a random order, as torchvision's `ColorJitter` does.

    **Arguments:**

    - `brightness`, `contrast`, `saturation`: for each value x, the factor is uniform in [max(0, 1 - x), 1 + x].
    - `hue`: the hue shifts by a fraction of the circle, uniform in [-`hue`, `hue`].
    """
    spans = (brightness, contrast, saturation)
    lowest, highest = (jnp.array([1 + sign * span for span in spans], jnp.float32) for sign in (-1, 1))

    def jitter(image: Image, key: Key) -> Image:
        factors_key, hue_key, order_key = jax.random.split(key, 3)
        factors = jax.random.uniform(factors_key, (3,), minval=jnp.maximum(lowest, 0), maxval=highest)
        delta = jax.random.uniform(hue_key, minval=-hue, maxval=hue) if hue else None
        return jitter_color(image, factors, delta, jax.random.randint(order_key, (), 0, 4 * len(_ORDERS)))

    return jitter


def jitter_color(
    image: Image, factors: Float[Array, "3"], delta: Float[Array, ""] | None, order: Int[Array, ""]
) -> Image:
    """Scales brightness, contrast and saturation as Pillow's `ImageEnhance` does, and shifts the hue.

    **Arguments:**

    - `image`: `[h w c]`; one channel has neither saturation nor hue.
    - `factors`: the factors of brightness, contrast and saturation.
    - `delta`: the hue shift, as a fraction of the circle; `None` for no shift.
    - `order`: one of 24 orders: the hue shifts after `order % 4` of the other changes, whose order is `order // 4`.
    """

    # All three blends run both before and after the hue shift. Each takes effect only on one side of the shift; on the
    # other side, its factor is 1. Choosing one of four operations four times would cost more, because `vmap` would
    # compute all sixteen.
    def blend(pixels: Image, step: tuple[Int[Array, ""], Float[Array, ""]]) -> tuple[Image, None]:
        which, factor = step
        gray = _gray(pixels)
        base = jnp.select([which == 0, which == 1], [jnp.zeros(()), gray.mean()], gray)
        # In this form, a pixel keeps its exact value if the factor is 1 or if the pixel equals `base`.
        return jnp.clip(pixels + (factor - 1) * (pixels - base), 0, 1), None

    blends = jnp.array(_ORDERS)[order // 4]
    is_before = jnp.arange(3) < order % 4
    pixels, _ = jax.lax.scan(blend, image.astype(jnp.float32), (blends, jnp.where(is_before, factors[blends], 1)))
    if delta is not None:
        pixels = shift_hue(pixels, delta)
    pixels, _ = jax.lax.scan(blend, pixels, (blends, jnp.where(is_before, 1, factors[blends])))
    return pixels.astype(image.dtype)


def shift_hue(image: Image, delta: Float[Array, ""]) -> Image:
    """Shifts the HSV hue by a fraction of the circle; an image with one channel stays unchanged."""
    if image.shape[-1] == 1:
        return image
    value, chroma = _value_and_chroma(image)
    hue = _hue(image, value, chroma) + 6 * delta

    # Computes each channel as a plane [h w]: a last axis of size 3 prevents vectorization on a CPU.
    def channel(shift: int) -> Float[Array, "h w"]:
        sector = hue + shift
        sector = sector - 6 * jnp.floor(sector / 6)
        return value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)

    return _clip_like(jnp.stack([channel(5), channel(3), channel(1)], -1), image)


def _split_channels(image: Image) -> Float[Array, "3 h w"]:
    """Returns red, green and blue in float32."""
    if image.shape[-1] != 3:
        raise InputError(f"an image with {image.shape[-1]} channels has no hue or saturation: use 1 or 3 channels.")
    return jnp.moveaxis(image.astype(jnp.float32), -1, 0)


def _gray(image: Image) -> Float[Array, "h w 1"]:
    """Returns the ITU-R 601-2 luma; a gray image is returned unchanged."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = _split_channels(image)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, :, None]


def _value_and_chroma(image: Image) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Returns the largest channel of each pixel, and its distance from the smallest channel."""
    red, green, blue = _split_channels(image)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    return value, value - jnp.minimum(jnp.minimum(red, green), blue)


def _hue(image: Image, value: Float[Array, "h w"], chroma: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Returns the hue of each pixel in sixths of the circle: red 0, green 2, blue 4."""
    red, green, blue = _split_channels(image)
    scale = jnp.where(chroma > 0, chroma, 1)
    green_or_blue = jnp.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale)
    return jnp.where(value == red, (green - blue) / scale, green_or_blue)


def _draw_factor(key: Key, lower: float | int, upper: float | int) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=lower, maxval=upper)


def _check_order(lower: float, upper: float) -> None:
    if lower > upper:
        raise InputError(f"`lower` (={lower}) must not be above `upper` (={upper})")


def _clip_like(pixels: Image, image: Image) -> Image:
    """Clips pixels to [0, 1] and casts them to the dtype of `image`."""
    return jnp.clip(pixels, 0, 1).astype(image.dtype)
