"""Fingerprints of data, computed from the encoded images, or from the sizes and times of files."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images.reading import read_file
from .cache import read_note, write_note
from .pixels import is_list, storage_of, stored_values

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Array
else:
    Dataset = Array = Any

__all__ = ["digest_values", "fingerprint_files", "fingerprint_images", "fingerprint_rows", "is_large", "sample_files"]

#: From this many bytes on, the fingerprint of unchanged files is read from the cache instead of being computed again.
_NOTE_BYTES = 256 << 20
#: A file younger than this may change again without a new modification time.
_CLOCK_TICK_SECONDS = 2.0
#: Placeholders for the length of an image stored outside the table, and for the length of a missing image.
_OUTSIDE, _MISSING = -2, -1
#: If the encoded images have at least this many bytes, `open_source` may read only a sample of them.
_LARGE_BYTES = 1 << 30
#: The total size of all files is estimated from the mean size of this many files.
_FILES_FOR_MEAN = 1000
#: Number of files read at once: a few photographs per thread, to bound the memory.
_FILES_AT_ONCE = 64
#: The number of blocks that are sampled from a file, spread evenly, and the number of bytes in each block.
_BLOCKS, _BLOCK_BYTES = 16, 16 << 10


def fingerprint_images(rows: Dataset, column: str, use_notes: bool = True, samples: int | None = None) -> str:
    """Returns a digest of a split's images: their encoded bytes or stored pixels, in the order of the rows.

    The digest does not depend on names or locations: the same image files give the same digest in class folders, in
    parquet, and on any machine. Re-encoding the same pixels changes the digest. The digest of a data set
    larger than 256 MiB is kept in the cache, keyed by the paths, sizes and times of its files.

    **Arguments:**

    - `use_notes`: whether the cache may be used; false for tables that may contain only some rows of their files.
    - `samples`: the number of images, spread over the rows, whose content is part of the digest, together with the
        lengths of all images; by default, the content of all images is part of the digest.
    """
    began = time.time()
    chunks = [storage_of(chunk) for chunk in rows.select_columns(column).with_format("arrow")[:][column].chunks]
    if is_list(chunks[0].type):
        return _fingerprint_pixels(chunks)
    encoded, references = zip(*map(_bytes_and_paths, chunks), strict=True)
    paths = [path for chunk_paths in references for path in chunk_paths]
    if samples is not None:
        return _fingerprint_sample(rows, column, encoded, paths, samples)
    facts = [_file_facts(path) for path in [*(entry["filename"] for entry in rows.cache_files), *paths]]
    note = f"images-{digest_values(column, len(rows), facts)}"
    is_on_disk = bool(rows.cache_files) or len(paths) == len(rows)
    is_large = use_notes and is_on_disk and sum(size for _, size, _ in facts) >= _NOTE_BYTES
    if is_large and isinstance(noted := (read_note(note) or {}).get("fingerprint"), str):
        return noted
    content = hashlib.sha256()
    lengths = np.concatenate([_add_bytes(content, chunk) for chunk in encoded])
    lengths[lengths == _OUTSIDE] = _add_files(content, paths)
    fingerprint = digest_values(hashlib.sha256(lengths.astype("<i8").tobytes()).hexdigest(), content.hexdigest())
    if is_large and max(max(times) for *_, times in facts) < (began - _CLOCK_TICK_SECONDS) * 1e9:
        write_note(note, {"fingerprint": fingerprint})
    return fingerprint


def is_large(rows: Dataset, column: str) -> bool:
    """Returns whether the encoded images of a column take 1 GiB or more."""
    chunks = [storage_of(chunk) for chunk in rows.select_columns(column).with_format("arrow")[:][column].chunks]
    if is_list(chunks[0].type):
        return False
    if sum(chunk.nbytes for chunk in chunks) >= _LARGE_BYTES:
        return True
    paths = [path for chunk in chunks for path in _bytes_and_paths(chunk)[1]]
    # The total size is estimated from a sample of the files, because a million calls of `stat` would take seconds.
    some = paths[:: max(len(paths) // _FILES_FOR_MEAN, 1)]
    return bool(some) and float(np.mean([_file_facts(path)[1] for path in some])) * len(paths) >= _LARGE_BYTES


def fingerprint_files(paths: Iterable[str | Path]) -> str:
    """Returns a digest of the files' paths, sizes, modification times and status-change times; reads no content."""
    return digest_values([_file_facts(path) for path in paths])


def sample_files(paths: Iterable[str | Path]) -> str:
    """Returns a digest of the files' sizes and of sixteen blocks of each file, independent of paths and times.

    **Raises:** `OSError` if a file cannot be read.
    """
    content, sizes = hashlib.sha256(), []
    for path in paths:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start in np.unique(np.linspace(0, max(size - _BLOCK_BYTES, 0), _BLOCKS).astype(np.int64)).tolist():
                file.seek(start)
                content.update(file.read(_BLOCK_BYTES))
        sizes.append(size)
    return digest_values(sizes, content.hexdigest())


def fingerprint_rows(images: str, numbers: np.ndarray, labels: np.ndarray) -> str:
    """Returns a digest of some rows of a split.

    **Arguments:**

    - `images`: the fingerprint of all images of the split.
    - `numbers`, `labels`: the chosen rows, and their class numbers.
    """
    chosen = np.stack([numbers, labels]).astype("<i4").tobytes()
    return digest_values(images, len(numbers), hashlib.sha256(chosen).hexdigest())


def digest_values(*values: Any) -> str:
    """Returns a digest of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _file_facts(path: str | Path | None) -> tuple[str, int, tuple[int, int]]:
    """Returns path, size, modification time and status-change time; a copy always has a new status-change time."""
    try:
        stat = Path(path or "").stat()
    except (OSError, ValueError):
        return str(path), -1, (0, 0)
    return str(path), stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns)


def _bytes_and_paths(chunk: Array) -> tuple[Array, list[str | None]]:
    """Returns the encoded bytes in a column's chunk, and the paths of the images whose bytes are null."""
    import pyarrow as pa

    if not pa.types.is_struct(chunk.type):
        return chunk, [None] * chunk.null_count
    fields = dict(zip((field.name for field in chunk.type), chunk.flatten(), strict=True))
    is_outside = fields["bytes"].is_null()
    if "path" not in fields:
        return fields["bytes"], [None] * fields["bytes"].null_count
    return fields["bytes"], fields["path"].filter(is_outside).to_pylist()


def _add_bytes(content: Any, encoded: Array) -> np.ndarray:
    """Adds binary values to a hash without copying them; returns their lengths, `_OUTSIDE` for null."""
    ends, data = _value_ends(encoded), encoded.buffers()[2]
    if len(ends) and data is not None:
        content.update(memoryview(data)[ends[0] : ends[-1]])
    return _value_lengths(encoded)


def _value_lengths(encoded: Array) -> np.ndarray:
    """Returns the lengths of binary values, `_OUTSIDE` for null."""
    ends = _value_ends(encoded)
    return np.where(np.asarray(encoded.is_null()), _OUTSIDE, np.diff(ends)) if len(ends) else np.zeros(0, np.int64)


def _value_ends(encoded: Array) -> np.ndarray:
    """Returns where the first binary value starts in the buffer and where each value ends; empty without values."""
    import pyarrow as pa

    dtype = np.int64 if pa.types.is_large_binary(encoded.type) else np.int32
    offsets = encoded.buffers()[1]
    if len(encoded) == 0 or offsets is None:
        return np.zeros(0, np.int64)
    return np.frombuffer(offsets, dtype)[encoded.offset : encoded.offset + len(encoded) + 1].astype(np.int64)


def _fingerprint_pixels(chunks: list[Array]) -> str:
    """Returns a digest of nested lists of numbers; the digest does not depend on how a column is cut into chunks."""
    content, missing, seen = hashlib.sha256(), hashlib.sha256(), 0
    # For each depth, a digest of the lengths of the lists at this depth.
    depths: list[Any] = []
    kind = ""
    for values in chunks:
        depth = 0
        while is_list(values.type):
            depths += [hashlib.sha256()] if depth == len(depths) else []
            lengths = np.asarray(values.value_lengths().fill_null(_MISSING))
            depths[depth].update(np.where(np.asarray(values.is_null()), _MISSING, lengths).astype("<i8").tobytes())
            values, depth = values.flatten(), depth + 1
        missing.update((np.flatnonzero(np.asarray(values.is_null())) + seen).astype("<i8").tobytes())
        content.update(np.ascontiguousarray(values.fill_null(0).to_numpy(zero_copy_only=False)).data)
        seen, kind = seen + len(values), str(values.type)
    return digest_values(kind, *(digest.hexdigest() for digest in (*depths, missing, content)))


def _fingerprint_sample(
    rows: Dataset, column: str, encoded: tuple[Array, ...], paths: list[str | None], samples: int
) -> str:
    """Returns a digest of the lengths of all images and of the content of some images."""
    lengths = np.concatenate([_value_lengths(chunk) for chunk in encoded])
    lengths[lengths == _OUTSIDE] = [_file_facts(path)[1] for path in paths]
    raw, content = rows.select_columns(column).with_format("arrow"), hashlib.sha256()
    for number in np.unique(np.linspace(0, len(rows) - 1, samples).astype(np.int64)).tolist():
        (value,) = stored_values(raw[number : number + 1][column])
        if isinstance(value, dict):
            value = _read_file(value.get("path")) if value.get("bytes") is None else value["bytes"]
        content.update(value or b"")
    return digest_values("sample", hashlib.sha256(lengths.astype("<i8").tobytes()).hexdigest(), content.hexdigest())


def _add_files(content: Any, paths: list[str | None]) -> list[int]:
    """Adds the content of files to a hash; returns the files' lengths, `_MISSING` for a file that cannot be read."""
    lengths = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _FILES_AT_ONCE):
            for data in pool.map(_read_file, paths[start : start + _FILES_AT_ONCE]):
                content.update(data or b"")
                lengths.append(_MISSING if data is None else len(data))
    return lengths


def _read_file(path: str | None) -> bytes | None:
    try:
        return None if path is None else read_file(path)
    except (OSError, ValueError):
        return None
