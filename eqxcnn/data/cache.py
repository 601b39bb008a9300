"""Decoded images on disk: written once, whole or not at all, and opened as a memory map."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int32, UInt8

from ..errors import InputError

#: Images, their labels, and the (number, reason) of each row left out, a chunk at a time.
Chunk = tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]


@dataclass(frozen=True)
class Entry:
    """What the cache holds under one key."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    skipped: tuple[tuple[int, str], ...]


def cache_root(given: str | Path | None = None) -> Path:
    """The cache's folder: the given one, else `$EQXCNN_CACHE`, else `eqxcnn` in the user's cache folder."""
    if given is not None:
        return Path(given).expanduser()
    if os.environ.get("EQXCNN_CACHE"):
        return Path(os.environ["EQXCNN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "eqxcnn"


def open_or_build(
    root: Path,
    key: str,
    rows: int,
    image_shape: tuple[int, int, int],
    chunks: Callable[[], Generator[Chunk, None, None]],
) -> Entry:
    """The entry `key` of the cache, built from `chunks()` where it is not there or not whole.

    Safe when several processes ask at once: one builds, the others wait for it. An entry is a folder that gets its
    name only when it is complete.

    **Arguments:**

    - `rows`: how many rows the chunks hold at most; fewer when some are skipped.
    - `image_shape`: `(height, width, channels)`.

    **Raises:** `InputError` when the folder cannot be written or the disk is full, and whatever `chunks` raises.
    """
    from filelock import FileLock, Timeout

    folder = root / key
    needed = rows * int(np.prod(image_shape))
    entry = _open(folder, image_shape)
    if entry is not None:
        return entry
    lock = FileLock(str(root / f"{key}.lock"))
    with _writing(root, needed):
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _say(f"waiting for another process that decodes into {folder}")
            lock.acquire()
    try:
        # The other process may have built it meanwhile.
        entry = _open(folder, image_shape, say=True)
        if entry is None:
            _build(folder, rows, image_shape, needed, chunks)
            entry = _open(folder, image_shape, say=True)
    finally:
        lock.release()
    if entry is None:
        raise InputError(f"the image cache in `{root}` cannot be read back: choose another folder with `EQXCNN_CACHE`.")
    return entry


def _build(
    folder: Path,
    rows: int,
    image_shape: tuple[int, int, int],
    needed: int,
    chunks: Callable[[], Generator[Chunk, None, None]],
) -> None:
    # Only the holder of the lock comes here, so what bears this name was left by a process that died.
    partial = folder.with_name(f"{folder.name}.partial")
    labels: list[np.ndarray] = []
    skipped: list[tuple[int, str]] = []
    try:
        with _writing(folder.parent, needed):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            # Plain writes: on a full disk, a write through a memory map kills the process instead of raising.
            with (partial / "images.npy").open("w+b") as file, closing(chunks()) as source:
                _write_header(file, rows, image_shape)
                for images, chunk_labels, chunk_skipped in source:
                    _write(file, images)
                    labels.append(chunk_labels)
                    skipped += chunk_skipped
                kept = sum(len(each) for each in labels)
                _write_header(file, kept, image_shape)
                file.flush()
                os.fsync(file.fileno())  # Some file systems find out only here that there is no room.
            np.save(partial / "labels.npy", np.concatenate(labels).astype(np.int32), allow_pickle=False)
            meta = {"rows": kept, "image_shape": image_shape, "skipped": skipped}
            (partial / "meta.json").write_text(json.dumps(meta, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_header(file: BinaryIO, rows: int, image_shape: tuple[int, int, int]) -> None:
    """The header of a `.npy` file, at its start; numpy leaves room in it for any number of rows."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *image_shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(max(end, file.tell()))


def _write(file: BinaryIO, images: np.ndarray) -> None:
    file.write(np.ascontiguousarray(images).data)


def _open(folder: Path, image_shape: tuple[int, int, int], say: bool = False) -> Entry | None:
    """The entry, or `None` when it is not there; also when it is not whole, which is said."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        expected = (meta["rows"], *image_shape)
        size = (folder / "images.npy").stat().st_size - images.offset
        if images.shape != expected or images.dtype != np.uint8 or size != images.nbytes:
            raise ValueError(f"it has {size} bytes of {images.dtype} {images.shape} images, not {expected}")
        if labels.shape != expected[:1] or labels.dtype != np.int32:
            raise ValueError(f"it has {labels.dtype} labels {labels.shape} for {meta['rows']} images")
        skipped = tuple((int(row), str(reason)) for row, reason in meta["skipped"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        if say:
            _say(f"the image cache {folder} is not whole ({error}): decoding again")
        return None
    # A plain view: as a `memmap`, each batch taken from it would be one too.
    return Entry(np.asarray(images), labels, skipped)


@contextmanager
def _writing(root: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space, or set `EQXCNN_CACHE` to a folder on another disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"no room in `{root}` for {needed:,} bytes of decoded images: {hint}.") from error
        raise InputError(
            f"the image cache cannot be written in `{root}` ({error.strerror or error}): set `EQXCNN_CACHE` to a "
            "folder that can."
        ) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
