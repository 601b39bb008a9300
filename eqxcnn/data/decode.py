"""Decodes the rows of a table in threads."""

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from ..errors import InputError
from ..images.opening import describe_error, unreadable_errors
from ..images.preprocess import Preprocess
from .pixels import are_pixels, stored_values, to_image

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["BadRow", "decode_rows", "describe_bad_image", "encoded_file", "fetch", "image_source"]

_CHUNK_BYTES = 16 << 20
_CHUNK_ROWS = 1024


class BadRow(NamedTuple):
    """An unusable row: its index in the split, and the reason, which includes the file's path if it is known."""

    row: int
    reason: str


def decode_rows(
    rows: Dataset,
    column: str,
    numbers: Integer[np.ndarray, " n"],
    preprocess: Preprocess,
    scale: int = 1,
) -> Generator[tuple[UInt8[np.ndarray, "k h w c"], list[BadRow]], None, None]:
    """Yields the images of the given rows in order, in chunks; each chunk comes with a list of its bad rows.

    A bad row is all zeros in its chunk. Threads decode in parallel, since Pillow releases the GIL; they run only a few
    chunks ahead of the consumer to bound the memory.

    **Arguments:**

    - `scale`: multiplies the values if the table stores pixels as numbers; from `pixels.find_scale`.
    """
    size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (preprocess.size[0] * preprocess.size[1] * preprocess.channels)))
    raw = rows.select_columns(column).with_format("arrow")
    threads = os.cpu_count() or 1
    pending: deque[Future[tuple[np.ndarray, list[BadRow]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(numbers), size):
                chunk = numbers[start : start + size]
                pending.append(pool.submit(_decode_chunk, raw, column, chunk, preprocess, scale))
                if len(pending) > threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_chunk(
    raw: Dataset, column: str, numbers: np.ndarray, preprocess: Preprocess, scale: int
) -> tuple[np.ndarray, list[BadRow]]:
    images = np.zeros((len(numbers), *preprocess.size, preprocess.channels), np.uint8)
    bad = []
    try:
        values = fetch(raw, column, numbers)
    except (OSError, ValueError) as error:
        raise InputError(f"rows {numbers[0]} to {numbers[-1]} cannot be read: {describe_error(error)}.") from error
    for index, value in enumerate(values):
        try:
            images[index] = preprocess.decode(image_source(value, scale))
        except unreadable_errors() as error:
            bad.append(BadRow(int(numbers[index]), describe_bad_image(value, error)))
    return images, bad


def fetch(raw: Dataset, column: str, numbers: np.ndarray) -> Iterator[Any]:
    """Yields the stored values of a column in the given rows one at a time, because all together may take gigabytes.

    **Arguments:**

    - `raw`: a data set in arrow format, so that nothing is decoded.
    """
    first, last = int(numbers[0]), int(numbers[-1])
    is_range = last - first + 1 == len(numbers)
    # A slice of a memory-mapped table is free; a list of rows is gathered row by row.
    table = raw[slice(first, last + 1) if is_range else numbers.tolist()]
    return stored_values(table[column])


def encoded_file(value: Any) -> bytes | str:
    """Returns the bytes or the path in a stored value, which is a `{"bytes", "path"}` dictionary or plain bytes."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise ValueError("it holds no image")
    return value


def image_source(value: Any, scale: int) -> Any:
    """Returns a stored value in a form that `Preprocess.decode` takes; see `decode_rows` for `scale`."""
    return to_image(value, scale) if are_pixels(value) else encoded_file(value)


def describe_bad_image(value: Any, error: BaseException) -> str:
    """Returns the reason why a stored value cannot be decoded, and the file's path if it is known."""
    path = value.get("path") if isinstance(value, dict) else None
    return f"{f'`{path}`: ' if path else ''}{describe_error(error)}"
