"""Decoded images on disk: each entry is written once, whole or not at all, and opened as a memory map."""

import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int32, UInt8

from ..errors import InputError
from ..parsing import parse_json, read_text

__all__ = ["Chunk", "Entry", "cache_root", "open_entry", "open_or_build", "read_note", "write_note"]

#: The images of a chunk, their labels, and the (number, reason) of each row that was skipped in the chunk.
Chunk = tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]


@dataclass(frozen=True)
class Entry:
    """The arrays that the cache holds under one key."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    skipped: tuple[tuple[int, str], ...]


def cache_root(folder: str | Path | None = None) -> Path:
    """Returns the cache's folder: `folder`, else `$EQXCNN_CACHE`, else `eqxcnn` in the user's cache folder."""
    if folder is not None:
        return _expand(folder)
    if os.environ.get("EQXCNN_CACHE"):
        return _expand(os.environ["EQXCNN_CACHE"])
    return _expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "eqxcnn"


def _expand(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # `Path.expanduser` raises for an unknown user.


def read_note(name: str) -> dict[str, Any] | None:
    """Returns a value that `write_note` stored in the default cache folder, or `None`."""
    try:
        note = parse_json(read_text(cache_root() / "notes" / f"{name}.json"), "the note")
    except InputError:
        return None
    return note if isinstance(note, dict) else None


def write_note(name: str, value: dict[str, Any]) -> None:
    """Stores a value that is slow to compute again; does nothing if the cache cannot be written."""
    folder = cache_root() / "notes"
    partial = folder / f"{name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value))
        partial.replace(folder / f"{name}.json")
    except OSError:
        with suppress(OSError):
            partial.unlink()


def open_or_build(
    root: Path,
    key: str,
    rows: int,
    image_shape: tuple[int, int, int],
    chunks: Callable[[], Generator[Chunk, None, None]],
) -> Entry:
    """Returns the entry `key` of the cache, and builds it from `chunks()` if it is missing or damaged.

    If several processes request the entry at once, one builds it and the others wait. An entry is a folder that is
    renamed to `key` only when it is complete.

    **Arguments:**

    - `rows`: the number of rows, including rows that the chunks skip, such as unreadable images.
    - `image_shape`: `(height, width, channels)`.

    **Raises:** `InputError` if the folder cannot be written or the disk is full, and any error that `chunks` raises.
    """
    from filelock import FileLock, Timeout

    folder = root / key
    needed_bytes = rows * int(np.prod(image_shape))
    entry = open_entry(folder, image_shape)
    if entry is not None:
        return entry
    lock = FileLock(str(root / f"{key}.lock"))
    with _explain_write_errors(root, needed_bytes):
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _print_to_stderr(f"waiting for another process that decodes into {folder}")
            lock.acquire()
    try:
        # The other process may have built the entry meanwhile.
        entry = open_entry(folder, image_shape, report=True)
        if entry is None:
            _build(folder, rows, image_shape, needed_bytes, chunks)
            entry = open_entry(folder, image_shape, report=True)
    finally:
        lock.release()
    if entry is None:
        raise InputError(f"the image cache in `{root}` cannot be read back: choose another folder with `EQXCNN_CACHE`.")
    return entry


def _build(
    folder: Path,
    rows: int,
    image_shape: tuple[int, int, int],
    needed_bytes: int,
    chunks: Callable[[], Generator[Chunk, None, None]],
) -> None:
    # Only the holder of the lock gets here, so a folder of this name was left by a process that died.
    partial = folder.with_name(f"{folder.name}.partial")
    labels: list[np.ndarray] = []
    skipped: list[tuple[int, str]] = []
    try:
        with _explain_write_errors(folder.parent, needed_bytes):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            # Plain writes: on a full disk, a write through a memory map kills the process instead of raising.
            with (partial / "images.npy").open("w+b") as file, closing(chunks()) as source:
                _write_header(file, rows, image_shape)
                for chunk_images, chunk_labels, chunk_skipped in source:
                    _write_images(file, chunk_images)
                    labels.append(chunk_labels)
                    skipped += chunk_skipped
                kept = sum(map(len, labels))
                _write_header(file, kept, image_shape)
                file.flush()
                os.fsync(file.fileno())  # Some file systems report a full disk only here.
            numbers = np.concatenate(labels).astype(np.int32)
            np.save(partial / "labels.npy", numbers, allow_pickle=False)
            digest = _digest(numbers, kept, skipped)
            meta = {"rows": kept, "image_shape": image_shape, "skipped": skipped, "sha256": digest}
            (partial / "meta.json").write_text(json.dumps(meta, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_header(file: BinaryIO, rows: int, image_shape: tuple[int, int, int]) -> None:
    """Writes a `.npy` header at the start of the file; numpy pads the header to fit any number of rows."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *image_shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(max(end, file.tell()))


def _write_images(file: BinaryIO, images: np.ndarray) -> None:
    file.write(np.ascontiguousarray(images).data)


def open_entry(folder: Path, image_shape: tuple[int, int, int], report: bool = False) -> Entry | None:
    """Returns the entry in `folder`, or `None` if it is missing or damaged; with `report`, prints how it is damaged."""
    if not folder.is_dir():
        return None
    try:
        meta = parse_json(read_text(folder / "meta.json", limit=1 << 30), "its `meta.json`")
        images = _map_array(folder / "images.npy", "|u1", (meta["rows"], *image_shape))
        labels = np.array(_map_array(folder / "labels.npy", "<i4", (meta["rows"],)))
        digest = _digest(labels, meta["rows"], meta["skipped"])
        # The digest does not cover the pixels, because reading all of them takes long. Older versions wrote no digest.
        if meta.get("sha256", digest) != digest:
            raise ValueError("its labels have changed")
        skipped = tuple((int(row), str(reason)) for row, reason in meta["skipped"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        if report:
            _print_to_stderr(f"the image cache {folder} is damaged ({error}): decoding again")
        return None
    # A plain view: indexing a `memmap` would return another `memmap` for each batch.
    return Entry(np.asarray(images), labels, skipped)


def _map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Memory-maps the array in a `.npy` file. The header is compared with the expected header, never parsed."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    start = header.getvalue()
    size, expected = path.stat().st_size, len(start) + math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected or not path.is_file():
        raise ValueError(f"its `{path.name}` has {size} bytes, not {expected}")
    with path.open("rb") as file:
        if file.read(len(start)) != start:
            raise ValueError(f"its `{path.name}` is not of type {dtype} and shape {shape}")
    return np.memmap(path, dtype, "r", len(start), shape)


def _digest(labels: np.ndarray, rows: Any, skipped: Any) -> str:
    return hashlib.sha256(labels.tobytes() + json.dumps([rows, skipped]).encode()).hexdigest()


@contextmanager
def _explain_write_errors(root: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"no room in `{root}` for {needed_bytes:,} bytes of decoded images: free some space, or set "
                "`EQXCNN_CACHE` to a folder on another disk."
            ) from error
        raise InputError(
            f"the image cache cannot be written in `{root}` ({error.strerror or error}): set `EQXCNN_CACHE` to a "
            "writable folder."
        ) from error


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
