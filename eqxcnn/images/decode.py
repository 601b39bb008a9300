"""Decodes one encoded image: turns it upright, converts its color, and resizes the requested part."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8

from ..errors import InputError
from .opening import describe_error, open_image, unreadable_errors
from .reading import read_file

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    Image = Any

__all__ = [
    "DECODER_VERSION",
    "ORIENTATION",
    "Box",
    "Interpolation",
    "Source",
    "check_source",
    "decode_box",
    "decode_image",
    "explain",
    "is_turned",
    "open_upright",
    "resize_box",
    "to_array",
]

#: Part of every cache key. Increase this number when a change makes the same file decode to different pixels.
DECODER_VERSION = 1

#: The EXIF tag of the orientation; 1 is upright, 5 to 8 swap height and width.
ORIENTATION = 0x0112

#: The bytes of an encoded file, its path, or a Pillow image.
Source: TypeAlias = bytes | str | Path | Image
#: Left, top, right and bottom edges of a part of an image, in pixels; fractions are allowed.
Box: TypeAlias = tuple[float, float, float, float]
Interpolation: TypeAlias = Literal["bilinear", "bicubic", "nearest"]

#: Larger images are decoded one at a time: each takes hundreds of megabytes.
_LARGE_PIXELS = 50_000_000
_large_image = threading.Lock()
#: Number of pixels, of more than 8 bits each, that are converted at once.
_STRIP_PIXELS = 1 << 20


def decode_image(source: Source, image_size: tuple[int, int] | None, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one image, and stretches it to `image_size`; `Preprocess` can crop or pad instead.

    The image is turned upright by its EXIF orientation, transparent parts are blended over white, 16-bit gray is
    divided by 257, and any color space is converted to gray (ITU-R 601 luma) or RGB. It is then resized to `image_size`
    with Pillow's antialiased bilinear filter, without a crop. Only the first frame of an animation is decoded.

    **Arguments:**

    - `source`: the bytes of an encoded file, its path, or a Pillow image.
    - `image_size`: `(height, width)` in pixels; `None` keeps the image's own size.
    - `channels`: 1 or 3.

    **Raises:** `InputError` if the source is not an image file (PNG, JPEG, GIF, WebP, BMP, TIFF, PPM, ICO, JPEG 2000,
    TGA, AVIF), is truncated, is not a regular file, or has more pixels than `$EQXCNN_MAX_PIXELS` (89 million).
    """
    if channels not in (1, 3):
        raise InputError(f"`channels` (={channels}) must be 1 (gray) or 3 (RGB).")
    check_source(source)
    with explain(source), open_upright(source, channels) as image:
        size = image_size or (image.height, image.width)
        return to_array(resize_box(image, None, size, "bilinear"))


def check_source(source: Any) -> None:
    """Checks that the source of an image is bytes, a path or a Pillow image.

    **Raises:** `InputError` naming any other type.
    """
    if not isinstance(source, bytes | str | Path) and not hasattr(source, "getexif"):
        raise InputError(
            f"an image of type {type(source).__name__} cannot be decoded: give a path, the bytes of a file, or a "
            "Pillow image (`PIL.Image.fromarray` converts an array)."
        )


@contextmanager
def explain(source: Source) -> Iterator[None]:
    """Turns the exceptions of unreadable files into an `InputError` that names the file."""
    try:
        yield
    except unreadable_errors() as error:
        what = f"`{source}`" if isinstance(source, str | Path) else "the image"
        raise InputError(f"{what} cannot be read as an image: {describe_error(error)}.") from error


@contextmanager
def open_upright(source: Source, channels: int) -> Iterator[Image]:
    """Yields the decoded image, upright and in gray or RGB.

    Only one image of more than 50 million pixels is open at a time.

    **Raises:** one of `unreadable_errors` if the image cannot be decoded.
    """
    image = _open(source)
    with _large_image if image.width * image.height > _LARGE_PIXELS else nullcontext():
        image.load()
        yield _convert_channels(_turn_upright(image), channels)


def decode_box(
    source: Source,
    channels: int,
    size: tuple[int, int],
    choose_box: Callable[[int, int], tuple[int, int, int, int]],
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a part of an image and resizes it with Pillow's antialiased bilinear filter.

    To save time, a JPEG is decoded at an eighth, a quarter or half of its size if the part is then still at least as
    high and as wide as `size`.

    **Arguments:**

    - `choose_box`: called with the upright height and width; returns top, left, height and width of the part.

    **Raises:** one of `unreadable_errors` if the image cannot be decoded.
    """
    image = _open(source)
    if image.format == "TIFF":
        image.load()  # Pillow turns a TIFF upright while loading it.
    width, height = image.size
    if is_turned(image):
        width, height = height, width
    top, left, box_height, box_width = choose_box(height, width)
    with _large_image if width * height > _LARGE_PIXELS else nullcontext():
        shrink = min(box_height / size[0], box_width / size[1])
        if image.format == "JPEG" and shrink >= 2:
            # The size that the decoder chooses is never below the requested size.
            image.draft(None, (int(image.width / shrink), int(image.height / shrink)))
        image.load()
        image = _convert_channels(_turn_upright(image), channels)
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + box_width) * x, (top + box_height) * y)
        return to_array(resize_box(image, box, size, "bilinear"))


def resize_box(image: Image, box: Box | None, size: tuple[int, int], interpolation: Interpolation) -> Image:
    """Resizes the part of an image inside `box` to `(height, width)`; without a box, resizes the whole image.

    The filter is antialiased unless `interpolation` is nearest. Near the edges of the box, the filter also reads pixels
    outside the box, so the result equals the same crop of the resized whole image.
    """
    from PIL import Image

    height, width = size
    # Rounding may put an edge slightly outside the image.
    left, top, right, bottom = box or (0.0, 0.0, float(image.width), float(image.height))
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height)))
    if inside == (0, 0, width, height) == (0, 0, *image.size):
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()], inside)


def to_array(image: Image) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels of a gray or RGB image as a new array."""
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def is_turned(image: Image) -> bool:
    """Returns whether turning an image upright will swap its height and width.

    Orientation values other than 1 to 8 are ignored. A TIFF must already be loaded, because Pillow turns it upright
    while loading. For a PNG, this function loads the pixels, because the metadata may follow them.
    """
    return image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)


def _open(source: Source) -> Image:
    if isinstance(source, str | Path):
        source = read_file(source)  # Given a path, Pillow would keep the file of an animation open.
    return open_image(source) if isinstance(source, bytes) else source


def _turn_upright(image: Image) -> Image:
    from PIL import ImageOps

    # Pillow turns a TIFF upright while loading it, but older versions keep its orientation tag. An image without
    # metadata has no orientation, and looking for the tag takes as long as decoding a small image.
    if image.format == "TIFF" or not image.info:
        return image
    return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image


def _convert_channels(image: Image, channels: int) -> Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _convert_to_8_bits(image)
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _convert_to_8_bits(image: Image) -> Image:
    """Converts 16-bit, 32-bit or floating-point gray to 8 bits by scaling its range, without clipping.

    The range is 16 bits for modes `I;16*`, and for mode `I` (32-bit integers) in a PNG file. Depending on the largest
    value, the range is 8 or 16 bits for mode `I` in other files, and 0 to 1 or 0 to 255 for floats.
    """
    from PIL import Image

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    is_16_bit = image.mode != "F" and (image.mode != "I" or image.format == "PNG" or high > 255)
    limit = 65535 if is_16_bit else 255
    if not 0 <= low <= high <= limit:
        raise ValueError(f"its values {low:g} to {high:g} are not within 0 to {limit}")
    scale = 1 / 257 if is_16_bit else 255 if image.mode == "F" and high <= 1 else 1
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):  # One strip at a time: the product takes up to 8 bytes per pixel.
        scaled[top : top + rows] = np.rint(values[top : top + rows] * scale)
    return Image.fromarray(scaled)
