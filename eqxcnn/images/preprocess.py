"""`Preprocess`: turns an image into the pixels that a model expects."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8

from ..errors import InputError
from .decode import Interpolation, Source, check_source, explain, open_upright, resize_box, to_array

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    Image = Any

__all__ = ["MAX_SIDE", "Preprocess", "Resize"]

Resize: TypeAlias = Literal["stretch", "crop", "pad"]

#: The largest height and width in pixels.
MAX_SIDE = 4096
#: The smallest `crop_fraction`.
_MIN_FRACTION = 0.1
#: Gray level of the borders that `pad` adds.
_PAD_GRAY = 128
#: Tolerance for rounding errors: `size / crop_fraction`, such as 224 / (224 / 236), may be slightly below the whole
#: number that it should equal.
_ROUNDING = 1e-6
#: The largest ratio of the resized image's pixels to the kept part's pixels. Above this ratio, only the kept part is
#: resized: a strip of 1 x 10,000 pixels must not be enlarged as a whole.
_MAX_RATIO = 16


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the input of a model.

    The image is decoded as by `decode_image`, resized, and cropped or padded to `size`; the model then normalizes the
    pixels. `preprocess(image)` does all but the normalization, and returns `uint8[h w c]`.

    **Arguments:**

    - `size`: `(height, width)` in pixels.
    - `channels`: 1 (gray) or 3 (RGB).
    - `resize`: `stretch` changes the aspect ratio; `crop` scales the image until it covers `size / crop_fraction`
        and keeps the center, as torchvision's `Resize` and `CenterCrop` do; `pad` scales it until it fits into `size`
        and adds gray borders.
    - `crop_fraction`: the side of the kept center as a fraction of the resized image's shorter side (timm's
        `crop_pct`), from 0.1 to 1. With `stretch`, the kept center has this fraction of both height and width.
    - `interpolation`: `bilinear` and `bicubic` are antialiased, as in Pillow; `nearest` is not.
    - `mean`, `std`: the normalization per channel, on the scale [0, 1]; both `None` to measure them on the
        training images.

    **Raises:** `InputError` for an invalid argument; the message names the argument.
    """

    size: tuple[int, int]
    channels: int = 3
    resize: Resize = "stretch"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    mean: tuple[float | int, ...] | None = None
    std: tuple[float | int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise InputError(f"`size` (={self.size}) must be height and width in pixels, each from 1 to {MAX_SIDE}")
        if self.channels not in (1, 3):
            raise InputError(f"`channels` (={self.channels}) must be 1 (gray) or 3 (RGB)")
        if self.resize not in ("stretch", "crop", "pad"):
            raise InputError(f"`resize` (={self.resize!r}) must be stretch, crop or pad")
        if self.interpolation not in ("bilinear", "bicubic", "nearest"):
            raise InputError(f"`interpolation` (={self.interpolation!r}) must be bilinear, bicubic or nearest")
        if not _MIN_FRACTION <= self.crop_fraction <= 1:
            raise InputError(f"`crop_fraction` (={self.crop_fraction}) must be from {_MIN_FRACTION} to 1")
        if self.resize == "pad" and self.crop_fraction != 1:
            raise InputError(
                f"`crop_fraction` (={self.crop_fraction}) must be 1 with `resize` (='pad'), which crops nothing"
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if (value is None) != (self.mean is None) or (value is not None and len(value) != self.channels):
                raise InputError(f"`{name}` (={value}) must have one number for each of the {self.channels} channels")

    def __call__(self, image: Source) -> UInt8[np.ndarray, "h w c"]:
        """Decodes and resizes one image.

        **Arguments:**

        - `image`: a path, the bytes of an image file, or a Pillow image.

        **Raises:** `InputError` if the image cannot be read; see `decode_image`.
        """
        check_source(image)
        with explain(image):
            return self.decode(image)

    def decode(self, image: Source) -> UInt8[np.ndarray, "h w c"]:
        """Does the same as `preprocess(image)`, but raises one of `unreadable_errors` instead of an `InputError`."""
        with open_upright(image, self.channels) as upright:
            if self.resize == "pad":
                return _pad(upright, self.size, self.interpolation)
            sides, top, left = self._find_crop(upright.height, upright.width)
            height, width = self.size
            if math.prod(sides) <= _MAX_RATIO * height * width:
                # Resizing only the kept part would be faster, but some pixels would differ by up to 7 gray levels:
                # Pillow rounds the part's edges to float32, and the part's shape sets the order of the two passes.
                resized = resize_box(upright, None, sides, self.interpolation)
                return to_array(resized.crop((left, top, left + width, top + height)))
            y, x = upright.height / sides[0], upright.width / sides[1]
            box = (left * x, top * y, (left + width) * x, (top + height) * y)
            return to_array(resize_box(upright, box, self.size, self.interpolation))

    @property
    def cache_key(self) -> tuple[str | float, ...]:
        """The settings, other than size and channels, that affect the pixels; empty if all are at their defaults."""
        chosen = self.resize, self.crop_fraction, self.interpolation
        return () if chosen == ("stretch", 1.0, "bilinear") else chosen

    def _find_crop(self, height: int, width: int) -> tuple[tuple[int, int], int, int]:
        """Returns the height and width of the resized image, and the top and left edges of the part to keep.

        torchvision's `Resize` and `CenterCrop` use the same sizes and edges.
        """
        tall, wide = (math.floor(side / self.crop_fraction + _ROUNDING) for side in self.size)
        if self.resize == "crop":
            # One side determines the scale; the other side is rounded down, as in torchvision.
            if tall * width >= wide * height:
                wide = max(int(tall * width / height), self.size[1])
            else:
                tall = max(int(wide * height / width), self.size[0])
        return (tall, wide), round((tall - self.size[0]) / 2), round((wide - self.size[1]) / 2)


def _pad(image: Image, size: tuple[int, int], interpolation: Interpolation) -> UInt8[np.ndarray, "h w c"]:
    """Resizes the whole image to fit into `size`, and centers it on gray."""
    scale = min(size[0] / image.height, size[1] / image.width)
    height, width = (
        min(max(round(side * scale), 1), most) for side, most in zip((image.height, image.width), size, strict=True)
    )
    pixels = to_array(resize_box(image, None, (height, width), interpolation))
    padded = np.full((*size, pixels.shape[2]), _PAD_GRAY, np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded[top : top + height, left : left + width] = pixels
    return padded
