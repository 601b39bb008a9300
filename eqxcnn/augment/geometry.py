"""Random flips, rotations by 90 degrees and crops.

Each factory returns a function of one image `[h w c]` and a key.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..errors import InputError
from ..images.crops import TRIES, largest_box
from ..ranges import Range, check_arguments
from ..types import Augment, AugmentContext, Image, Key
from .context import ContextAugment
from .erase import Area, AspectRatio, Side, check_order

__all__ = [
    "Box", "Probability", "RandomResizedCrop", "alternating_flip", "antialiased_crop", "linear_taps", "random_box",
    "random_crop", "random_flip_horizontal", "random_flip_vertical", "random_resized_crop", "random_rot90",
    "resized_crop",
]  # fmt: skip

#: Top, left, height and width of a box, in pixels.
Box: TypeAlias = Float[Array, "4"] | Int[Array, "4"]

Probability: TypeAlias = Annotated[float, Range(0, 1)]


@check_arguments
def random_flip_horizontal(p: Probability = 0.5) -> Augment:
    """Swaps left and right with probability `p`."""
    return _flip(p, axis=1)


@check_arguments
def random_flip_vertical(p: Probability = 0.5) -> Augment:
    """Swaps top and bottom with probability `p`."""
    return _flip(p, axis=0)


def _flip(p: float, axis: int) -> Augment:
    def flip(image: Image, key: Key) -> Image:
        return jnp.take(image, _flip_index(image.shape[axis], jax.random.bernoulli(key, p)), axis, mode="clip")

    return flip


def alternating_flip() -> ContextAugment:
    """Swaps left and right in every other epoch (Jordan 2024, arXiv:2404.00498, section 3.6).

    Each image has a fixed random key, which decides whether the image is mirrored in the first epoch. Any two
    successive epochs then show both versions; with independent flips, only half of such pairs would.
    """

    def flip(image: Image, key: Key, context: AugmentContext) -> Image:
        is_mirrored = jax.random.bernoulli(context.image_key) ^ (context.epoch % 2 == 1)
        return jnp.take(image, _flip_index(image.shape[1], is_mirrored), 1, mode="clip")

    return ContextAugment(flip)


def random_rot90() -> Augment:
    """Rotates a square image counter-clockwise by 0, 90, 180 or 270 degrees, with equal probability."""

    def rot90(image: Image, key: Key) -> Image:
        height, width, _ = image.shape
        if height != width:
            raise InputError(
                f"`random_rot90` needs square images, not {height} x {width}: resize them, or use flips instead."
            )
        turns = jax.random.randint(key, (), 0, 4)
        row = _flip_index(height, (turns == 1) | (turns == 2))[:, None]
        column = _flip_index(width, turns >= 2)[None]
        is_odd = turns % 2 == 1
        return image[jnp.where(is_odd, column, row), jnp.where(is_odd, row, column)]

    return rot90


def _flip_index(size: int, is_backward: Bool[Array, ""]) -> Int[Array, " size"]:
    """Returns the indices of an axis, forward or backward.

    A gather costs no more than a select between the image and its mirror image. In a chain of transforms, which XLA
    fuses, a gather costs far less, because a select would compute both of its operands.
    """
    index = jnp.arange(size)
    return jnp.where(is_backward, size - 1 - index, index)


@check_arguments
def random_crop(
    padding: Annotated[int, Range(0, 4096)], mode: Literal["constant", "reflect", "edge"] = "constant"
) -> Augment:
    """Shifts an image by up to `padding` pixels in each direction: pads all sides, then crops to the original size.

    **Arguments:**

    - `padding`: the number of pixels added to each side; at most the image's height and width, and less than both for
      `reflect`.
    - `mode`: the content of new pixels: `constant` is black, `edge` repeats the border, `reflect` mirrors the image.
    """

    def crop(image: Image, key: Key) -> Image:
        if padding > min(image.shape[:2]):
            raise InputError(
                f"`padding` (={padding}) must be at most the image's height and width {image.shape[:2]}: pad less"
            )
        if mode == "reflect" and padding == min(image.shape[:2]):
            raise InputError(
                f"`padding` (={padding}) must be less than the image's height and width {image.shape[:2]} "
                "with `mode='reflect'`: pad less, or choose `mode='edge'`."
            )
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode)
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)

    return crop


@check_arguments
def random_resized_crop(
    scale: tuple[Area, Area] = (0.08, 1.0),
    ratio: tuple[AspectRatio, AspectRatio] = (3 / 4, 4 / 3),
    size: tuple[Side, Side] | None = None,
) -> Augment:
    """Crops a random box and resizes it (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    The box is drawn as in torchvision's `RandomResizedCrop`; see `random_box`.

    **Arguments:**

    - `scale`: the smallest and largest area of the box, as a fraction of the image's area.
    - `ratio`: the smallest and largest value of the box's width / height.
    - `size`: height and width of the result in pixels; by default, the size of the image. Cropping and resizing
      enlarge objects; if `size` is smaller than the test images, objects can be about as large in training as in
      these (Touvron et al. 2019, arXiv:1906.06423).
    """
    check_order(scale=scale, ratio=ratio)
    return RandomResizedCrop(scale, ratio, size)


@dataclass(frozen=True)
class RandomResizedCrop:
    """The transform that `random_resized_crop` returns.

    - `scale`, `ratio`: the limits of the box.
    - `size`: height and width of the result; by default, the size of the image, so that the box is never downscaled.
    """

    scale: tuple[float | int, float | int]
    ratio: tuple[float | int, float | int]
    size: tuple[int, int] | None = None

    def __call__(self, image: Image, key: Key) -> Float[Array, "_ _ c"]:
        """Crops a random box of an image `[h w c]` and resizes it."""
        height, width, _ = image.shape
        box = random_box(key, height, width, self.scale, self.ratio)
        return resized_crop(image, box) if self.size is None else antialiased_crop(image, box, self.size)


def random_box(
    key: Key,
    height: int,
    width: int,
    scale: tuple[float | int, float | int],
    ratio: tuple[float | int, float | int],
) -> Int[Array, "4"]:
    """Draws a box inside an image of `height` x `width` pixels, by torchvision's definition.

    The area is uniform in `scale`, the logarithm of width / height is uniform between the logarithms of `ratio`, both
    sides are rounded to pixels, and the position is uniform. The first of ten draws that fits is used; if none fits,
    the box is the largest centered one within `ratio`.

    **Returns:** top, left, height and width.
    """
    size_key, place_key = jax.random.split(key)
    # All ten draws are made at once: under `vmap`, a loop would make all of them for every image anyway.
    shares = jax.random.uniform(size_key, (TRIES, 2))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * shares[:, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = jnp.exp((low + (high - low) * shares[:, 1]) / 2)
    sizes = jnp.round(jnp.sqrt(area)[:, None] * jnp.stack([1 / root, root], 1)).astype(jnp.int32)

    whole = jnp.array([height, width])
    fits = ((sizes > 0) & (sizes <= whole)).all(1)
    size = jnp.where(fits.any(), sizes[jnp.argmax(fits)], jnp.array(largest_box(height, width, ratio)))
    room = whole - size
    place = jnp.where(fits.any(), jax.random.randint(place_key, (2,), 0, room + 1), room // 2)
    return jnp.concatenate([place, size])


def resized_crop(image: Image, box: Box) -> Image:
    """Resizes the part of an image inside `box` to the size of the image; bilinear, with half-pixel centers.

    Equals Pillow's `Image.resize(size, BILINEAR, box=...)`: near the border of the box, pixels outside the box are
    used too.

    **Arguments:**

    - `image`: `[h w c]`.
    - `box`: no larger than the image; fractions of a pixel are allowed.
    """
    top, left, height, width = box.astype(jnp.float32)
    pixels = image.astype(jnp.float32)
    # Two gathers per axis are faster on a CPU than products with interpolation matrices.
    before, after, weight = _crop_taps(left, width, image.shape[1])
    pixels = pixels[:, before] + (pixels[:, after] - pixels[:, before]) * weight[:, None]
    before, after, weight = _crop_taps(top, height, image.shape[0])
    pixels = pixels[before] + (pixels[after] - pixels[before]) * weight[:, None, None]
    return pixels.astype(image.dtype)


def antialiased_crop(image: Image, box: Box, size: tuple[int, int]) -> Float[Array, "_ _ c"]:
    """Resizes the part of an image `[h w c]` inside `box` to `size`, with an antialiased bilinear filter.

    Equals Pillow's `Image.resize(size, BILINEAR, box=...)`, for a box of any size.
    """
    top, left, height, width = box.astype(jnp.float32)
    scale = jnp.stack([size[0] / height, size[1] / width])
    offset = -jnp.stack([top, left]) * scale
    shape = (*size, image.shape[2])
    pixels = jax.image.scale_and_translate(image.astype(jnp.float32), shape, (0, 1), scale, offset, "linear")
    return pixels.astype(image.dtype)


def _crop_taps(
    start: Float[Array, ""], length: Float[Array, ""], size: int
) -> tuple[Int[Array, " size"], Int[Array, " size"], Float[Array, " size"]]:
    """Returns, for each of `size` new pixels, the indices of two source pixels and the weight of the second."""
    return linear_taps(start + (jnp.arange(size, dtype=jnp.float32) + 0.5) * (length / size) - 0.5, size)


def linear_taps(
    position: Float[Array, "*d"], size: int
) -> tuple[Int[Array, "*d"], Int[Array, "*d"], Float[Array, "*d"]]:
    """Returns the indices of the two pixels beside each position in a row of `size` pixels, and the weight of the
    second pixel.

    Position 0 is the center of the first pixel.
    """
    before = jnp.floor(position)
    index = before.astype(jnp.int32)
    return jnp.clip(index, 0, size - 1), jnp.clip(index + 1, 0, size - 1), position - before
