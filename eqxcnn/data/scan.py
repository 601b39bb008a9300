"""One pass over the images of a part, in threads: digests, sizes, channels, bad rows, and sums of the pixels."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from ..errors import InputError
from ..images.decode import open_upright, resize_box, to_array
from ..images.opening import describe_error, unreadable_errors
from ..images.reading import read_file
from .columns import MISSING
from .decode import encoded_file, fetch
from .headers import read_header
from .parts import Part, progress_bar
from .pixels import are_pixels, to_image

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["DIGEST_BYTES", "Scan", "Unreadable", "file_of", "scan_part"]

DIGEST_BYTES = 16
#: Number of rows that are read at once; small, because the rows of a hold-out are copied before they are decoded.
_CHUNK_ROWS = 128


class Unreadable(NamedTuple):
    """An image that cannot be decoded: the number of its row in its split, the file's name if known, the reason."""

    row: int
    file: str | None
    reason: str


@dataclass(frozen=True)
class Scan:
    """The result of a pass over `n` rows.

    **Arguments:**

    - `numbers`, `labels`: the row number in the split and the class number of each row.
    - `is_readable`: whether each image could be decoded. For an unreadable image, the rows of `files`, `pixels`,
        `sizes` and `is_gray` are 0.
    - `files`: a digest of each encoded file.
    - `pixels`: a digest of each image's size and decoded pixels (upright, 8-bit RGB).
    - `sizes`: upright `(height, width)`.
    - `is_gray`: whether the file or the stored array has one channel.
    - `unreadable`: the images that could not be decoded, in the order of the rows.
    - `sums`, `squares`, `count`: the exact sums per channel of the pixels (0 to 255) and of their squares, and the
        number of pixels. They are computed from the readable images with labels, resized to `measure`, and are 0 if
        `measure` is `None`.
    """

    numbers: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    is_readable: Bool[np.ndarray, " n"]
    files: UInt8[np.ndarray, "n 16"]
    pixels: UInt8[np.ndarray, "n 16"]
    sizes: Int32[np.ndarray, "n 2"]
    is_gray: Bool[np.ndarray, " n"]
    unreadable: tuple[Unreadable, ...]
    sums: Int[np.ndarray, " c"]
    squares: Int[np.ndarray, " c"]
    count: int


class _Facts(NamedTuple):
    """The properties of one image, and its pixels, resized to `measure`."""

    file: bytes
    pixels: bytes
    size: tuple[int, int]
    is_gray: bool
    resized: np.ndarray | None


def scan_part(
    part: Part,
    column: str,
    scale: int,
    *,
    max_rows: int | None,
    measure: tuple[int, int, int] | None,
    title: str | None,
) -> Scan:
    """Decodes the images of a part once, and keeps none of them.

    **Arguments:**

    - `column`, `scale`: see `decode_rows`.
    - `max_rows`: the largest number of rows to decode; these rows are spread evenly over the part.
    - `measure`: height, width and channels to which images are converted before their pixels are summed; `None` to
        sum no pixels.
    - `title`: the title of the progress bar; `None` for no bar.
    """
    rows = len(part.numbers)
    chosen = np.arange(rows)
    if max_rows is not None and max_rows < rows:
        chosen = np.linspace(0, rows - 1, max_rows).astype(np.int64)
    numbers, labels = part.numbers[chosen], part.labels[chosen]
    raw = part.rows.select_columns(column).with_format("arrow")
    starts = range(0, len(numbers), _CHUNK_ROWS)

    def scan_chunk(start: int) -> Scan:
        end = start + _CHUNK_ROWS
        return _scan_rows(raw, column, scale, numbers[start:end], labels[start:end], measure)

    found = []
    with progress_bar(title, len(numbers)) as advance, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for chunk in pool.map(scan_chunk, starts):
                found.append(chunk)
                advance(len(chunk.numbers))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return _join(found)


def _join(scans: list[Scan]) -> Scan:
    arrays = ("numbers", "labels", "is_readable", "files", "pixels", "sizes", "is_gray")
    joined: dict[str, Any] = {name: np.concatenate([getattr(scan, name) for scan in scans]) for name in arrays}
    totals: dict[str, Any] = {name: sum(getattr(scan, name) for scan in scans) for name in ("sums", "squares", "count")}
    return Scan(**joined, **totals, unreadable=tuple(bad for scan in scans for bad in scan.unreadable))


def _scan_rows(
    raw: Dataset,
    column: str,
    scale: int,
    numbers: np.ndarray,
    labels: np.ndarray,
    measure: tuple[int, int, int] | None,
) -> Scan:
    try:
        stored = fetch(raw, column, numbers)
    except (OSError, ValueError) as error:
        raise InputError(f"rows {numbers[0]} to {numbers[-1]} cannot be read: {describe_error(error)}.") from error
    rows, bad = len(numbers), []
    files, pixels = (np.zeros((rows, DIGEST_BYTES), np.uint8) for _ in range(2))
    sizes, is_gray, is_readable = np.zeros((rows, 2), np.int32), np.zeros(rows, bool), np.zeros(rows, bool)
    sums, squares = (np.zeros(1 if measure is None else measure[2], np.int64) for _ in range(2))
    count = 0
    for index, value in enumerate(stored):
        try:
            facts = _examine(value, scale, None if labels[index] == MISSING else measure)
        except unreadable_errors() as error:
            bad.append(Unreadable(int(numbers[index]), file_of(value), describe_error(error)))
            continue
        files[index], pixels[index] = (np.frombuffer(each, np.uint8) for each in (facts.file, facts.pixels))
        sizes[index], is_gray[index], is_readable[index] = facts.size, facts.is_gray, True
        if facts.resized is not None:
            values = facts.resized.reshape(-1, facts.resized.shape[2])
            sums += values.sum(0, dtype=np.int64)
            squares += np.square(values.astype(np.uint16)).sum(0, dtype=np.int64)  # 255**2 fits into 16 bits.
            count += len(values)
    return Scan(numbers, labels, is_readable, files, pixels, sizes, is_gray, tuple(bad), sums, squares, count)


def _examine(value: Any, scale: int, measure: tuple[int, int, int] | None) -> _Facts:
    """Decodes one stored value; raises one of `unreadable_errors` if that fails."""
    data = None
    if are_pixels(value):
        source: Any = to_image(value, scale)
        is_gray = source.mode == "L"
    else:
        encoded = encoded_file(value)
        source = data = encoded if isinstance(encoded, bytes) else read_file(encoded)
        header = read_header({"bytes": data})
        is_gray = header is not None and header[1]
    with open_upright(source, 3) as image:
        size = image.height, image.width
        pixels = _digest(f"{size}".encode(), image.tobytes())
        resized = None
        if measure is not None:
            height, width, channels = measure
            # Converting gray pixels to RGB and back does not change them.
            wanted = image.convert("L") if channels == 1 else image
            resized = to_array(resize_box(wanted, None, (height, width), "bilinear"))
    return _Facts(pixels if data is None else _digest(data), pixels, size, is_gray, resized)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def file_of(value: Any) -> str | None:
    """Returns the file name in a stored value, or `None` for a value without a file name."""
    path = value.get("path") if isinstance(value, dict) else None
    return None if path is None else str(path)
