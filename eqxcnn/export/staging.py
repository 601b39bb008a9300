"""Writes the files of an export to a temporary folder, and moves them into place after the check."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

__all__ = ["check_target", "file_stem", "stage"]


def file_stem(name: str) -> str:
    """Returns a model's name with unsafe characters replaced by `_`, for use as a file name."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "model"


def check_target(path: Path, overwrite: bool) -> None:
    """Checks that a file may be written to `path`; called before anything is computed.

    **Raises:** `InputError` if the path is a folder, or if the file exists and `overwrite` is false.
    """
    if path.is_dir():
        raise InputError(f"`{path}` is a folder: give the path of a file")
    if path.exists() and not overwrite:
        raise InputError(
            f"`{path}` exists already: choose another path, or overwrite it (`--force`, in Python `overwrite=True`)"
        )


@contextmanager
def stage(path: Path) -> Iterator[Path]:
    """Yields a path with the file name of `path`, but in a temporary folder.

    Afterwards, all files in the temporary folder are moved to the folder of `path`. After an exception, nothing is
    moved. The temporary folder is always removed.

    **Raises:** `InputError` if a file cannot be written.
    """
    # The temporary folder is beside the target, because replacing a file is atomic only within one file system.
    folder = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            yield folder / path.name
            # The main file is moved last, because it refers to the other files.
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
                os.replace(file, path.parent / file.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror or error}") from error
