"""The files in the folder of a data set, with a limit on their number."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..errors import InputError

__all__ = [
    "ARCHIVES",
    "LAYOUTS",
    "LISTS",
    "TABLES",
    "find_images",
    "image_suffixes",
    "is_file",
    "is_skipped",
    "is_skipped_folder",
    "scan",
    "suffix",
    "walk",
]

#: A folder with more than this many entries that are not data is refused: it may be a whole disk or a home folder.
_MAX_OTHER_ENTRIES = 100_000

#: Suffixes of tables, of lists of images, and of the archives that `datasets` would unpack.
TABLES = (".parquet", ".arrow")
LISTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
ARCHIVES = (".zip",)
LAYOUTS = (
    "put images into one folder per class (`FOLDER/cat/1.jpg`, or `FOLDER/train/cat/1.jpg` and "
    "`FOLDER/test/cat/2.jpg`), or give parquet files or a `save_to_disk` folder."
)


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, by which `datasets` recognizes image files."""
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    return frozenset(ImageFolder.EXTENSIONS)


def suffix(name: str) -> str:
    """Returns the suffix of a file's name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def is_skipped(name: str) -> bool:
    """Returns whether files and folders of this name are never part of a data set."""
    return name.startswith(".") or name == "lost+found"


def is_skipped_folder(name: str) -> bool:
    """Returns whether folders of this name are never part of a data set."""
    return is_skipped(name) or name.startswith("__")


def is_file(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a regular file or a link to a regular file; false for a loop of links."""
    try:
        return entry.is_file()
    except OSError:
        return False


def find_images(folder: str | Path) -> list[Path]:
    """Returns the image files in a folder and its subfolders, recognized by their suffixes and sorted by path.

    **Raises:** `InputError` if there are no image files, or if a subfolder cannot be read.
    """
    found = sorted(Path(entry.path) for entry in walk(folder) if suffix(entry.name) in image_suffixes())
    if not found:
        raise InputError(f"the folder `{folder}` holds no image files.")
    return found


def walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yields all files below a folder, except hidden ones. Links to folders are not followed.

    **Raises:** `InputError` if a folder cannot be read, or after 100,000 entries that are neither images nor tables.
    """
    wanted = {*image_suffixes(), *TABLES}
    others, folders = 0, [os.fspath(folder)]
    while folders:
        for entry in scan(folders.pop()):
            if is_file(entry) and not is_skipped(entry.name):
                yield entry
            elif entry.is_dir(follow_symlinks=False) and not is_skipped_folder(entry.name):
                folders.append(entry.path)
            others += suffix(entry.name) not in wanted
            if others > _MAX_OTHER_ENTRIES:
                raise InputError(
                    f"`{folder}` holds more than {_MAX_OTHER_ENTRIES:,} files and folders that are neither images nor "
                    f"tables, so it is not a data set: {LAYOUTS}"
                )


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder.

    **Raises:** `InputError` if the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"the folder `{folder}` cannot be read: {error.strerror}.") from error
