"""Reads a tree of class folders as a table of paths and labels, without glob patterns."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .files import LAYOUTS, TABLES, image_suffixes, is_file, is_skipped, is_skipped_folder, scan, suffix, walk
from .fingerprint import digest_values

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
else:
    Dataset = DatasetDict = Any

__all__ = ["read_class_folders"]

_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "validation", "valid", "val")


def read_class_folders(folder: Path, test_split: str | None = None) -> DatasetDict | None:
    """Returns the images in a tree of class folders, or `None` if the folder is not such a tree.

    **Arguments:**

    - `test_split`: the folder of the test images; by default `test`, `testing`, `validation`, `valid` or `val`.

    `datasets` can read such a tree too, but it guesses splits from any "train" or "test" in a path, so that a class
    called `train` or an image called `test_1.png` silently hides all other images. It also skips class folders that
    are symbolic links, treats `c::d` as an address, and unpacks archives.

    **Raises:** `InputError` if a folder cannot be read, if images of a split lie at different depths, or if a path is
    not valid UTF-8.
    """
    import datasets

    if _is_described(folder):
        return None
    splits = {split: _list_images(folders) for split, folders in _find_class_folders(folder, test_split).items()}
    names = sorted({os.path.basename(os.path.dirname(path)) for paths in splits.values() for path in paths})
    if not names:
        return None
    return datasets.DatasetDict({split: _make_table(split, paths, names) for split, paths in splits.items()})


def _find_class_folders(folder: Path, test_split: str | None) -> Mapping[str, list[str]]:
    """Returns the paths of the class folders of each split, sorted."""
    tests = _TEST_FOLDERS if test_split is None else (test_split,)
    splits = {name: _image_folders(folder / name) for name in (*_TRAIN_FOLDERS, *tests)}
    train = next((splits[name] for name in _TRAIN_FOLDERS if splits[name]), None)
    if train is None:
        return {"train": _image_folders(folder)}
    test = next((splits[name] for name in tests if splits[name]), None)
    return {"train": train} | ({test_split or "test": test} if test else {})


def _is_described(folder: Path) -> bool:
    """Returns whether tables, a metadata file or a data card define the rows."""
    entries = scan(folder)
    if any(entry.name.startswith("metadata.") or suffix(entry.name) in TABLES for entry in entries):
        return True
    if any(entry.name == "README.md" and is_file(entry) and _has_card(Path(entry.path)) for entry in entries):
        return True
    return any(suffix(inner.name) in TABLES for path in _folders(folder) for inner in scan(path))


def _has_card(readme: Path) -> bool:
    with readme.open("rb") as file:
        return file.read(3) == b"---"


def _image_folders(folder: Path) -> list[str]:
    def has_images(path: str) -> bool:
        return any(_is_image(entry) for entry in scan(path))

    if not folder.is_dir():
        return []
    return [path for path in _folders(folder) if has_images(path)]


def _folders(folder: Path) -> list[str]:
    """Returns the sorted paths of the folders in a folder, including links to folders but not loops of links."""
    # `os.path.isdir` follows links as `DirEntry.is_dir` does, but never raises.
    return sorted(e.path for e in scan(folder) if not is_skipped_folder(e.name) and os.path.isdir(e.path))


def _list_images(folders: list[str]) -> list[str]:
    images = []
    for folder in folders:
        entries = scan(folder)
        inner = (
            entry for entry in entries if entry.is_dir(follow_symlinks=False) and not is_skipped_folder(entry.name)
        )
        for entry in (deep for top in inner for deep in walk(top.path)):
            if suffix(entry.name) in image_suffixes():
                raise InputError(
                    f"the image `{entry.path}` lies deeper than other images of its class; a classifier needs one "
                    f"folder of images per class, with all images at the same depth: {LAYOUTS}"
                )
        images += sorted(entry.path for entry in entries if _is_image(entry))
    return images


def _is_image(entry: os.DirEntry[str]) -> bool:
    return suffix(entry.name) in image_suffixes() and not is_skipped(entry.name) and is_file(entry)


def _make_table(split: str, paths: list[str], names: list[str]) -> Dataset:
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    try:
        files = pa.array(paths, pa.string())
    except UnicodeEncodeError as error:
        raise InputError(f"the name of the file `{error.object}` is not valid UTF-8: rename it.") from error
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[os.path.basename(os.path.dirname(path))] for path in paths]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), files], names=["bytes", "path"])
    table = pa.table({"image": images, "label": pa.array(labels, pa.int64())}, schema=features.arrow_schema)
    name = split if split == "train" else "test"  # A folder's name is not always a valid split name.
    info, digest = datasets.DatasetInfo(features=features), digest_values(split, paths, names)
    return datasets.Dataset(InMemoryTable(table), info=info, split=datasets.NamedSplit(name), fingerprint=digest[:16])
