"""A data set as training sees it: `open_source` looks at it, `DataSet.decode` and `load` give its arrays."""

import hashlib
import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError
from .batches import hold_out
from .cache import Chunk, cache_root, open_or_build
from .columns import find_image_column, find_label_column, read_labels
from .decode import DECODER_VERSION, fetch, read_header
from .parts import Part, decode_part
from .reading import read_rows
from .records import DataInfo, Split
from .sources import find_source

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

_LOOK = 64
_TEST_SPLITS = ("test", "validation", "valid", "val")


@dataclass(frozen=True)
class DataSet:
    """An opened data set: see `open_source`."""

    info: DataInfo
    _parts: Mapping[str, Part]
    _image_column: str
    _own_size: tuple[int, int] | None
    _fingerprint: str | None

    def decode(
        self,
        split: Literal["train", "test"],
        *,
        image_size: tuple[int, int] | None = None,
        channels: int | None = None,
        on_bad_image: Literal["stop", "skip"] = "stop",
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> Split:
        """The images of a split as `uint8[n h w c]`, with their labels.

        They are decoded once, and from then on are a memory map of the cache's file. See `load` for the arguments.
        """
        if split not in self._parts:
            raise InputError(f"`split` (=`{split}`) must be `train` or `test`.")
        if on_bad_image not in ("stop", "skip"):
            raise InputError(f"`on_bad_image` (=`{on_bad_image}`) must be `stop` or `skip`.")
        size = image_size or self._own_size
        if size is None:
            raise InputError(f"the images of `{self.info.name}` differ in size: give an `image_size`.")
        if min(size) < 1:
            raise InputError(f"`image_size` (={size}) must be a height and a width of at least 1 pixel.")
        channels = self.info.channels if channels is None else channels
        if channels not in (1, 3):
            raise InputError(f"`channels` (={channels}) must be 1 (gray) or 3 (RGB).")
        part = self._parts[split]
        shape = (*size, channels)

        def chunks() -> Generator[Chunk, None, None]:
            title = f"{self.info.name}/{split}" if progress else None
            return decode_part(part, self._image_column, shape, on_bad_image, title)

        if self._fingerprint is None:
            images, labels, bad = zip(*chunks(), strict=True)
            arrays = np.concatenate(images), np.concatenate(labels), sum(len(each) for each in bad)
        else:
            key = self._key(split, shape, on_bad_image)
            entry = open_or_build(cache_root(cache_dir), key, len(part.numbers), shape, chunks)
            arrays = entry.images, entry.labels, len(entry.skipped)
        return Split(arrays[0], arrays[1], self.info.class_names, arrays[2])

    def _key(self, split: str, shape: tuple[int, int, int], on_bad_image: str) -> str:
        part = self._parts[split]
        facts = (DECODER_VERSION, self._fingerprint, split, shape, on_bad_image, self._image_column)
        digest = hashlib.sha256(json.dumps(facts).encode() + part.numbers.tobytes() + part.labels.tobytes())
        name = re.sub(r"[^\w.-]", "_", self.info.name)[:40]
        return f"{name}-{split}-{'x'.join(map(str, shape))}-{digest.hexdigest()[:16]}"


def open_source(
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """Opens a data set: finds its splits, columns and classes, and looks at a few images.

    Its training split is `train`, or its only one. Its test split is `test`; without one, `validation` (or `valid`,
    `val`) is taken for it; without that too, a part of the training split, the same share of each class.

    **Arguments:**

    - `source`: a name of `SOURCES`, a local folder (parquet, `save_to_disk`, or class folders of images), or a Hub id
        `org/name` or `org/name:config`; see `find_source`.
    - `image_column`, `label_column`: which columns to take, where it cannot be told from their kinds and names.
    - `test_fraction`, `seed`: how much of the training split is held out, where there is no test split, and which part.
        The seed is not the training's, so that runs of several seeds are tested on the same images.

    **Raises:** `InputError`, in one sentence, for whatever is wrong with the source.
    """
    name, place = find_source(source)
    splits = read_rows(place)
    found = {split: len(rows) for split, rows in splits.items()}
    train, test = _train_and_test(source, found)
    used = {split: splits[split] for split in (train, test) if split is not None}
    features = splits[train].features
    images = find_image_column(features, image_column or place.image_column)
    wanted = find_label_column(features, label_column or place.label_column)
    for split, rows in used.items():
        if missing := {images, wanted} - set(rows.column_names):
            raise InputError(f"split `{split}` of `{source}` has no column `{missing.pop()}`, split `{train}` has.")
    class_names, labels = read_labels(used, wanted)
    size, channels = _look(source, splits[train], images)
    size = place.image_size or size
    # The fingerprint follows from the files' names and modification times, or from the Hub's commit, and is the same
    # in every process. Digits come from memory, and decode faster than a cache opens.
    prints = None if place.hub is None and place.folder is None else [rows._fingerprint for rows in used.values()]
    return DataSet(
        DataInfo(name, place.named(source), class_names, channels, None if place.follows_model else size, found, test),
        _parts(used, labels, train, test, test_fraction, seed),
        images,
        size,
        None if prints is None else "-".join(prints),
    )


def load(
    source: str,
    split: Literal["train", "test"],
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    cache_dir: str | Path | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    progress: bool = True,
) -> Split:
    """The images and labels of a split: `open_source` and `DataSet.decode` in one.

    **Arguments:**

    - `source`, `test_fraction`, `seed`: see `open_source`.
    - `split`: `train` or `test`.
    - `image_size`: `(height, width)` to bring every image to; by default the images' own, if they have one size.
    - `channels`: 1 or 3; by default the images' own.
    - `on_bad_image`: at an image that cannot be read, or a row without a label, `stop` with an error that names it, or
        `skip` it.
    - `cache_dir`: where decoded images are kept; by default `$EQXCNN_CACHE`, else `eqxcnn` in the user's cache folder.
    - `progress`: show a progress bar, or a line where there is no terminal, on standard error.
    """
    opened = open_source(source, test_fraction=test_fraction, seed=seed)
    return opened.decode(
        split,
        image_size=image_size,
        channels=channels,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
        progress=progress,
    )


def _train_and_test(source: str, rows: Mapping[str, int]) -> tuple[str, str | None]:
    """Which of the found splits to train and to test on."""
    filled = [split for split, count in rows.items() if count > 0]
    if not filled:
        raise InputError(f"`{source}` has no rows.")
    train = filled[0] if len(filled) == 1 else "train"
    if train not in filled:
        names = ", ".join(f"`{split}`" for split in filled)
        raise InputError(f"`{source}` has no split `train` among its splits {names}.")
    return train, next((split for split in _TEST_SPLITS if split in filled and split != train), None)


def _parts(
    used: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    train: str,
    test: str | None,
    test_fraction: float,
    seed: int,
) -> Mapping[str, Part]:
    if test is None:
        kept, held = hold_out(labels[train], test_fraction, seed)
        if len(held) == 0:
            raise InputError("a test split cannot be held out of classes that have one row each: give more rows.")
    else:
        kept, held = (np.arange(len(labels[split]), dtype=np.int32) for split in (train, test))
    return {
        "train": Part(used[train], train, kept, labels[train][kept]),
        "test": Part(used[test or train], test or train, held, labels[test or train][held]),
    }


def _look(source: str, rows: Dataset, column: str) -> tuple[tuple[int, int] | None, int]:
    """The one size of all images looked at, if it is one, and 1 when all are gray, else 3."""
    numbers = np.unique(np.linspace(0, len(rows) - 1, _LOOK).astype(np.int32))
    values = fetch(rows.select_columns(column).with_format("arrow"), column, numbers)
    headers = [header for header in map(read_header, values) if header is not None]
    if not headers:
        raise InputError(f"not one of {len(numbers)} rows looked at in `{source}` has an image that can be read.")
    sizes = {size for size, _ in headers}
    return sizes.pop() if len(sizes) == 1 else None, 1 if all(gray for _, gray in headers) else 3
