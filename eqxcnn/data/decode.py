"""Decoding of encoded images to `uint8` arrays: one image (`decode_image`), or rows in threads (`decode_rows`)."""

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from ..errors import InputError
from .files import read_file
from .opening import describe_error, open_image, unreadable_errors
from .pixels import are_pixels, stored_values, to_image

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
else:
    Dataset = Image = Any

__all__ = ["DECODER_VERSION", "ORIENTATION", "BadRow", "decode_image", "decode_rows", "encoded_file", "fetch"]

#: Part of every cache key: raise it when the same file decodes to other pixels than before.
DECODER_VERSION = 1

#: The EXIF tag of the orientation; 1 is upright, 5 to 8 swap height and width.
ORIENTATION = 0x0112

_CHUNK_BYTES = 16 << 20
_CHUNK_ROWS = 1024
#: Larger images are decoded one at a time: each takes hundreds of megabytes.
_LARGE_PIXELS = 50_000_000
_large_image = threading.Lock()
#: Number of pixels, of more than 8 bits each, that are converted at once.
_STRIP_PIXELS = 1 << 20


class BadRow(NamedTuple):
    """The number of an unusable row in its split, and the reason, with the file's name where there is one."""

    row: int
    reason: str


def decode_image(
    source: bytes | str | Path | Image, image_size: tuple[int, int] | None, channels: int
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one image in the same way as training does.

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
    if not isinstance(source, bytes | str | Path) and not hasattr(source, "getexif"):
        raise InputError(
            f"an image of type {type(source).__name__} cannot be decoded: give a path, the bytes of a file, or a "
            "Pillow image (`PIL.Image.fromarray` converts an array)."
        )
    try:
        return _decode(source, image_size, channels).copy()
    except unreadable_errors() as error:
        what = f"`{source}`" if isinstance(source, str | Path) else "the image"
        raise InputError(f"{what} cannot be read as an image: {describe_error(error)}.") from error


def decode_rows(
    rows: Dataset,
    column: str,
    numbers: Integer[np.ndarray, " n"],
    image_size: tuple[int, int],
    channels: int,
    scale: int = 1,
) -> Generator[tuple[UInt8[np.ndarray, "k h w c"], list[BadRow]], None, None]:
    """Yields the images of the given rows in order, a chunk at a time, with the chunk's bad rows.

    A bad row is all zeros in its chunk. Threads decode in parallel, since Pillow releases the GIL; they run only a few
    chunks ahead of the consumer to bound the memory.

    **Arguments:**

    - `scale`: the factor for a column of pixels, from `pixels.find_scale`; encoded images are not scaled.
    """
    size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (image_size[0] * image_size[1] * channels)))
    raw = rows.select_columns(column).with_format("arrow")
    threads = os.cpu_count() or 1
    pending: deque[Future[tuple[np.ndarray, list[BadRow]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(numbers), size):
                chunk = numbers[start : start + size]
                pending.append(pool.submit(_decode_chunk, raw, column, chunk, image_size, channels, scale))
                if len(pending) > threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_chunk(
    raw: Dataset, column: str, numbers: np.ndarray, image_size: tuple[int, int], channels: int, scale: int
) -> tuple[np.ndarray, list[BadRow]]:
    images = np.zeros((len(numbers), *image_size, channels), np.uint8)
    bad = []
    try:
        values = fetch(raw, column, numbers)
    except (OSError, ValueError) as error:
        raise InputError(f"rows {numbers[0]} to {numbers[-1]} cannot be read: {describe_error(error)}.") from error
    for index, value in enumerate(values):
        try:
            source = to_image(value, scale) if are_pixels(value) else encoded_file(value)
            images[index] = _decode(source, image_size, channels)
        except unreadable_errors() as error:
            bad.append(BadRow(int(numbers[index]), f"{_file_name(value)}{describe_error(error)}"))
    return images, bad


def fetch(raw: Dataset, column: str, numbers: np.ndarray) -> Iterator[Any]:
    """Yields the stored values of a column in the given rows one at a time: a thousand photographs take gigabytes.

    **Arguments:**

    - `raw`: a data set in arrow format, so that nothing is decoded.
    """
    first, last = int(numbers[0]), int(numbers[-1])
    is_range = last - first + 1 == len(numbers)
    # A slice of a memory-mapped table is free; a list of rows is gathered row by row.
    table = raw[slice(first, last + 1) if is_range else numbers.tolist()]
    return stored_values(table[column])


def encoded_file(value: Any) -> bytes | str:
    """Returns the bytes or the path in a stored value: `{"bytes", "path"}` of `datasets`, or plain bytes."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise ValueError("it holds no image")
    return value


def _file_name(value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else None
    return f"`{path}`: " if path else ""


def _decode(source: Any, image_size: tuple[int, int] | None, channels: int) -> np.ndarray:
    from PIL import Image

    if isinstance(source, str | Path):
        source = read_file(source)  # Pillow would keep the file of an animation open.
    image = open_image(source) if isinstance(source, bytes) else source
    with _large_image if image.width * image.height > _LARGE_PIXELS else nullcontext():
        image.load()
        image = _convert_channels(_turn_upright(image), channels)
        if image_size is not None and image.size != (image_size[1], image_size[0]):
            image = image.resize((image_size[1], image_size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, channels)


def _turn_upright(image: Image) -> Image:
    from PIL import ImageOps

    # Pillow turns a TIFF while loading it, and older versions leave the tag in place. An image without metadata has no
    # orientation, and looking for one costs as much as decoding a small image.
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

    The range is 16 bits for modes `I;16*`, 8 or 16 bits for 32-bit integers, and 0 to 1 or 0 to 255 for floats.
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
    for top in range(0, image.height, rows):  # In strips, because the product takes 8 bytes per pixel.
        scaled[top : top + rows] = np.rint(values[top : top + rows] * scale)
    return Image.fromarray(scaled)
