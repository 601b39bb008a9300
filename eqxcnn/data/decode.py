"""Encoded images of any kind to `uint8` arrays: one (`decode_image`), or a split's rows in threads (`decode_rows`)."""

import io
import os
import struct
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from ..errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
else:
    Dataset = Image = Any

#: Part of every cache's key: raise it when the same file would give other pixels.
DECODER_VERSION = 1

_CHUNK_BYTES = 16 << 20
_CHUNK_ROWS = 1024


class BadRow(NamedTuple):
    """The number of a row that cannot be used, in its split, and what is wrong with it (and its file's name)."""

    row: int
    reason: str


def decode_image(
    source: bytes | str | Path | Image, image_size: tuple[int, int] | None, channels: int
) -> UInt8[np.ndarray, "h w c"]:
    """One image as a classifier takes it.

    Turned upright by its EXIF orientation; transparent parts over white; 16-bit gray divided by 257; any color space
    to gray (ITU-R 601 luma) or RGB; then resized straight to `image_size` with Pillow's antialiased bilinear filter,
    without a crop, if it has another size. Of an animation, the first frame.

    **Arguments:**

    - `source`: an encoded file's bytes, its path, or a Pillow image.
    - `image_size`: `(height, width)` in pixels; `None` keeps the image's own.
    - `channels`: 1 or 3.

    **Raises:** `InputError` when the source is no image that can be read whole.
    """
    if channels not in (1, 3):
        raise InputError(f"`channels` (={channels}) must be 1 (gray) or 3 (RGB).")
    try:
        return _pixels(source, image_size, channels).copy()
    except _unreadable() as error:
        what = f"`{source}`" if isinstance(source, str | Path) else "the image"
        raise InputError(f"{what} cannot be read as an image: {_reason(error)}.") from error


def decode_rows(
    rows: Dataset, column: str, numbers: Integer[np.ndarray, " n"], image_size: tuple[int, int], channels: int
) -> Generator[tuple[UInt8[np.ndarray, "k h w c"], list[BadRow]], None, None]:
    """The rows of the given numbers, in order, a chunk at a time; a bad row is zeros in its chunk, and listed.

    Threads, because Pillow lets go of the interpreter while it decodes and resizes; a few chunks ahead of the
    consumer, so that memory stays bounded.
    """
    size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (image_size[0] * image_size[1] * channels)))
    raw = rows.select_columns(column).with_format("arrow")
    threads = os.cpu_count() or 1
    pending: deque[Future[tuple[np.ndarray, list[BadRow]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(numbers), size):
                chunk = numbers[start : start + size]
                pending.append(pool.submit(_decode_chunk, raw, column, chunk, image_size, channels))
                if len(pending) > threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_chunk(
    raw: Dataset, column: str, numbers: np.ndarray, image_size: tuple[int, int], channels: int
) -> tuple[np.ndarray, list[BadRow]]:
    images = np.zeros((len(numbers), *image_size, channels), np.uint8)
    bad = []
    try:
        values = fetch(raw, column, numbers)
    except (OSError, ValueError) as error:
        raise InputError(f"rows {numbers[0]} to {numbers[-1]} cannot be read: {_reason(error)}.") from error
    for index, value in enumerate(values):
        try:
            images[index] = _pixels(_encoded(value), image_size, channels)
        except _unreadable() as error:
            bad.append(BadRow(int(numbers[index]), f"{_file_name(value)}{_reason(error)}"))
    return images, bad


def fetch(raw: Dataset, column: str, numbers: np.ndarray) -> Iterator[Any]:
    """A column's stored values (of a dataset in arrow format, so nothing is decoded) in the rows of these numbers.

    They are taken from the memory-mapped table one by one: a thousand photographs at once would be gigabytes.
    """
    first, last = int(numbers[0]), int(numbers[-1])
    adjacent = last - first + 1 == len(numbers)
    # A slice of a memory-mapped table is free; a list of rows is gathered one by one.
    table = raw[slice(first, last + 1) if adjacent else numbers.tolist()]
    return (value.as_py() for value in table[column])


def read_header(value: Any) -> tuple[tuple[int, int], bool] | None:
    """Upright `(height, width)` of a stored value, and whether it is gray; `None` when it cannot be read."""
    from PIL import Image

    try:
        encoded = _encoded(value)
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5
            if image.format == "TIFF":
                image.load()  # See `_upright`.
            width, height = image.size
            gray = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    except _unreadable():
        return None
    return ((width, height) if turned else (height, width)), gray


_ORIENTATION = 0x0112  # EXIF; 1 is upright, 5 to 8 swap height and width.


def _encoded(value: Any) -> bytes | str:
    """The file's bytes, or its path; `datasets` stores `{"bytes", "path"}`, other writers of parquet plain bytes."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise ValueError("it holds no image")
    return value


def _file_name(value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else None
    return f"`{path}`: " if path else ""


def _pixels(source: Any, image_size: tuple[int, int] | None, channels: int) -> np.ndarray:
    from PIL import Image

    if isinstance(source, str | Path):
        source = Path(source).read_bytes()  # Pillow would keep the file of an animation open.
    image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    image.load()
    image = _in_channels(_upright(image), channels)
    if image_size is not None and image.size != (image_size[1], image_size[0]):
        image = image.resize((image_size[1], image_size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    # Pillow itself turns a TIFF as it loads it (older versions leave the tag in place, to be obeyed twice). An image
    # without metadata has no orientation, and to ask costs as much as to decode a small one.
    if image.format == "TIFF" or not image.info:
        return image
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _in_channels(image: Image, channels: int) -> Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(image: Image) -> Image:
    """Gray of 16 or 32 bits, or floating point, to 8 bits by its range, never clipped.

    Modes `I;16*` are 16 bits whatever they hold. 32-bit integers may hold either range; floats are 0 to 1 or 0 to 255.
    """
    from PIL import Image

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    wide = image.mode != "F" and (image.mode != "I" or image.format == "PNG" or high > 255)
    limit = 65535 if wide else 255
    if not 0 <= low <= high <= limit:
        raise ValueError(f"its values {low:g} to {high:g} are not within 0 to {limit}")
    scale = 1 / 257 if wide else 255 if image.mode == "F" and high <= 1 else 1
    return Image.fromarray(np.rint(values * scale).astype(np.uint8))


def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises for files that are broken in one way or another."""
    from PIL.Image import DecompressionBombError

    # Each was seen from Pillow's readers for a mangled file of some format, or is raised in them by hand.
    usual = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, LookupError, TypeError, ArithmeticError)
    return (*usual, struct.error, DecompressionBombError)


def _reason(error: BaseException) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its content is not that of an image file"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
