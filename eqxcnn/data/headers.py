"""Sizes and channels of a split's images, from their headers alone."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images.decode import DECODER_VERSION, is_turned
from ..images.opening import open_image, unreadable_errors
from ..images.reading import read_file
from .cache import read_note, write_note
from .decode import encoded_file, fetch
from .pixels import are_pixels, image_shape

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["find_size_and_channels", "read_header", "size_and_channels"]

#: Number of rows, spread over the split, that are read first; they usually show whether sizes differ and color occurs.
_FIRST_ROWS = 64
_QUICK_ROWS = 1000
_CHUNK_ROWS = 1024
#: The size and channels of a split with at least this many rows are kept in the cache.
_NOTE_ROWS = 4096
#: Names of the PNG chunks that can hold an orientation; such a chunk may also come after the pixels.
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def find_size_and_channels(
    rows: Dataset,
    column: str,
    fingerprint: str,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    quick: bool = False,
) -> tuple[tuple[int, int] | None, int] | None:
    """Returns the size that all images share (`None` if they differ) and the channels (1 if all are gray, else 3).

    Reads headers until both results are certain. If all images share one size, or if all are gray, every header is
    read. Images without a readable header are ignored.

    **Arguments:**

    - `fingerprint`: the fingerprint of the images, under which the cache keeps the result for a large split.
    - `image_size`, `channels`: values that are already known, which are returned unchanged.
    - `quick`: whether to read the headers of only a thousand images, spread over the split.

    **Returns:** `None` if no image has a readable header.
    """
    if image_size is not None and channels is not None:
        return image_size, channels
    note = f"headers-{DECODER_VERSION}-{fingerprint}"
    use_notes = len(rows) >= _NOTE_ROWS and not quick
    if use_notes and (noted := _read_noted(note)) is not None:
        return image_size or noted[0], channels or noted[1]
    sizes: set[tuple[int, int]] = set()
    has_color = False
    for size, is_gray in _read_headers(rows, column, quick):
        sizes.add(size)
        has_color |= not is_gray
        if (len(sizes) > 1 or image_size is not None) and (has_color or channels is not None):
            break
    if not sizes:
        return None
    found_size, found_channels = sizes.pop() if len(sizes) == 1 else None, 3 if has_color else 1
    if use_notes and image_size is None and channels is None:
        write_note(note, {"image_size": found_size, "channels": found_channels})
    return image_size or found_size, channels or found_channels


def size_and_channels(values: Iterable[Any]) -> tuple[tuple[int, int] | None, int] | None:
    """Returns the size that all images share (`None` if they differ) and the number of channels.

    **Returns:** `None` if no image has a readable header.
    """
    headers = [header for header in map(read_header, values) if header is not None]
    if not headers:
        return None
    sizes = {size for size, _ in headers}
    return sizes.pop() if len(sizes) == 1 else None, 1 if all(is_gray for _, is_gray in headers) else 3


def _read_noted(name: str) -> tuple[tuple[int, int] | None, int] | None:
    match read_note(name):
        case {"image_size": [int(height), int(width)], "channels": 1 | 3 as channels}:
            return (height, width), channels
        case {"image_size": None, "channels": 1 | 3 as channels}:
            return None, channels
    return None


def _read_headers(rows: Dataset, column: str, quick: bool) -> Iterator[tuple[tuple[int, int], bool]]:
    raw = rows.select_columns(column).with_format("arrow")
    spread = np.unique(np.linspace(0, len(rows) - 1, _QUICK_ROWS if quick else _FIRST_ROWS).astype(np.int32))
    starts = () if quick else range(0, len(rows), _CHUNK_ROWS)
    every = (np.arange(start, min(start + _CHUNK_ROWS, len(rows))) for start in starts)
    for numbers in (spread, *every):
        for value in fetch(raw, column, numbers):
            header = read_header(value)
            if header is not None:
                yield header


def read_header(value: Any) -> tuple[tuple[int, int], bool] | None:
    """Returns the upright `(height, width)` of a stored image and whether it is gray; `None` if it cannot be read."""
    try:
        if are_pixels(value):
            height, width, channels = image_shape(value)
            return (height, width), channels == 1
        encoded = encoded_file(value)
        data = encoded if isinstance(encoded, bytes) else read_file(encoded)
        if (header := _read_png_header(data)) is not None:
            return header
        with open_image(data) as image:
            swaps_sides = is_turned(image)
            if image.format == "TIFF":
                image.load()  # Pillow turns a TIFF upright only while loading its pixels.
            width, height = image.size
            is_gray = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    except unreadable_errors():
        return None
    return ((width, height) if swaps_sides else (height, width)), is_gray


def _read_png_header(data: bytes) -> tuple[tuple[int, int], bool] | None:
    """Reads the header of a PNG that has no metadata; Pillow would first decode the pixels to look for metadata."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    if any(name in data for name in _PNG_METADATA):
        return None
    width, height, _, color_type = struct.unpack(">IIBB", data[16:26])
    is_intact = zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big")
    return ((height, width), color_type in (0, 4)) if is_intact else None
