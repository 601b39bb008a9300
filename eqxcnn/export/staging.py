"""Writes the files of an export: first under temporary names, and to their places when they have passed the check."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

__all__ = ["check_target", "file_stem", "stage"]


def file_stem(name: str) -> str:
    """Returns the name of a model without the characters that a file name should not have."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "model"


def check_target(path: Path, overwrite: bool) -> None:
    """Refuses the path of a file that exists already, before anything is computed.

    **Raises:** `InputError` if there is such a file and `overwrite` is false, or if the path is a folder.
    """
    if path.is_dir():
        raise InputError(f"`{path}` is a folder: give the path of a file")
    if path.exists() and not overwrite:
        raise InputError(
            f"`{path}` exists already: name another place, or overwrite it (`--force`, in Python `overwrite=True`)"
        )


@contextmanager
def stage(path: Path) -> Iterator[Path]:
    """Yields a path with the same file name in a temporary folder; moves the folder's files to `path` afterwards.

    If an exception is raised, nothing is moved, and the temporary folder is removed in any case.

    **Raises:** `InputError` if a file cannot be written.
    """
    # Beside the target, because a file is replaced atomically only within one file system.
    folder = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            yield folder / path.name
            # The main file last: the files beside it are parts of it.
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
                os.replace(file, path.parent / file.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror or error}") from error
