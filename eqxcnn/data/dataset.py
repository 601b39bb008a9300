"""A data set as training uses it: `open_source` inspects it, `DataSet.decode` and `load` return its arrays."""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError
from .batches import hold_out
from .cache import Chunk, cache_root, open_or_build
from .columns import find_image_column, find_label_column, read_labels
from .decode import DECODER_VERSION
from .fingerprint import digest_values, fingerprint_images, fingerprint_rows
from .headers import find_size_and_channels
from .opening import MAX_PIXELS, max_pixels
from .parts import Part, decode_part
from .reading import read_rows, say_when_slow
from .records import DataInfo, Split
from .sources import Source, find_source

if TYPE_CHECKING:
    from datasets import Dataset
else:
    from typing import Any as Dataset

_TEST_SPLITS = ("test", "validation", "valid", "val")


@dataclass(frozen=True)
class DataSet:
    """An opened data set; see `open_source`."""

    info: DataInfo
    _parts: Mapping[str, Part]
    _image_column: str
    _own_size: tuple[int, int] | None
    _use_cache: bool

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
        """Returns the images of a split as `uint8[n h w c]`, with their labels.

        The images are decoded once; later calls memory-map the cache's file. See `load` for the arguments.
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

        if not self._use_cache:
            images, labels, skipped = zip(*chunks(), strict=True)
            return Split(np.concatenate(images), np.concatenate(labels), self.info.class_names, sum(map(len, skipped)))
        key = self._cache_key(split, shape, on_bad_image)
        entry = open_or_build(cache_root(cache_dir), key, len(part.numbers), shape, chunks)
        return Split(entry.images, entry.labels, self.info.class_names, len(entry.skipped))

    def _cache_key(self, split: str, shape: tuple[int, int, int], on_bad_image: str) -> str:
        limit = max_pixels()
        # With another limit, other rows are skipped.
        more = () if limit == MAX_PIXELS or on_bad_image == "stop" else (limit,)
        digest = digest_values(DECODER_VERSION, self._parts[split].fingerprint, shape, on_bad_image, *more)
        name = re.sub(r"[^\w.-]", "_", self.info.name)[:40]
        return f"{name}-{split}-{'x'.join(map(str, shape))}-{digest[:16]}"


def open_source(
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """Opens a data set: finds its splits, columns, classes, image size and channels, and computes its fingerprint.

    The training split is `train`, or the only split. The test split is `test`, else `validation` (or `valid`, `val`),
    else a part of the training split, with the same fraction of each class. Image size and channels are those of the
    training split; test images are converted to them.

    **Arguments:**

    - `source`: a name of `SOURCES`, a local folder (parquet, `save_to_disk`, or class folders of images), or a Hub id
        `org/name` or `org/name:config`; see `find_source`.
    - `image_column`, `label_column`: the columns to use, where types and names leave a choice.
    - `test_fraction`, `seed`: the fraction of the training split to hold out where there is no test split, and the seed
        that draws it. It is not the training seed, so that runs with several seeds are tested on the same images.

    **Raises:** `InputError`, in one sentence, if the source cannot be used.
    """
    name, place = find_source(source)
    with say_when_slow(source):
        return _open(source, name, place, image_column, label_column, test_fraction, seed)


def _open(
    source: str,
    name: str,
    place: Source,
    image_column: str | None,
    label_column: str | None,
    test_fraction: float,
    seed: int,
) -> DataSet:
    splits = read_rows(place)
    counts = {split: len(rows) for split, rows in splits.items()}
    train, test = _choose_splits(source, counts)
    used = {split: splits[split] for split in (train, test) if split is not None}
    features = splits[train].features
    images = find_image_column(features, image_column or place.image_column)
    target = find_label_column(features, label_column or place.label_column)
    for split, rows in used.items():
        if missing := {images, target} - set(rows.column_names):
            raise InputError(f"split `{split}` of `{source}` has no column `{missing.pop()}`, split `{train}` has.")
    class_names, labels = read_labels(used, target)
    fingerprints = {split: _fingerprint(place, rows, images) for split, rows in used.items()}
    found = find_size_and_channels(splits[train], images, fingerprints[train], place.image_size, place.channels)
    if found is None:
        raise InputError(f"none of the {counts[train]} images of split `{train}` of `{source}` can be read.")
    size, channels = found
    parts = _make_parts(used, labels, fingerprints, train, test, test_fraction, seed)
    info = DataInfo(
        name=name,
        source=place.absolute_name(source),
        class_names=class_names,
        channels=channels,
        image_size=None if place.resizes_to_model else size,
        splits=counts,
        test_split=test,
        fingerprint=digest_values(class_names, *(part.fingerprint for part in parts.values())),
    )
    # Digits come from memory, and decode faster than a cache opens.
    return DataSet(info, parts, images, size, _use_cache=not _is_digits(place))


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
    """Returns the images and labels of a split: `open_source` and `DataSet.decode` in one call.

    **Arguments:**

    - `source`, `test_fraction`, `seed`: see `open_source`.
    - `split`: `train` or `test`.
    - `image_size`: the `(height, width)` to resize every image to; by default the images' own, if they share one size.
    - `channels`: 1 or 3; by default the images' own.
    - `on_bad_image`: `stop` with an error that names the first unreadable image or row without a label, or `skip` it.
    - `cache_dir`: the folder for decoded images; by default `$EQXCNN_CACHE`, else `eqxcnn` in the user's cache folder.
    - `progress`: whether to show a progress bar, or a line where there is no terminal, on standard error.
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


def _is_digits(place: Source) -> bool:
    return place.hub is None and place.folder is None


def _fingerprint(place: Source, rows: Dataset, column: str) -> str:
    # The digits are encoded here, by whatever version of Pillow there is, and their pixels never change.
    return "digits" if _is_digits(place) else fingerprint_images(rows, column)


def _choose_splits(source: str, rows: Mapping[str, int]) -> tuple[str, str | None]:
    """Returns the names of the training split and of the test split, if there is one."""
    filled = [split for split, count in rows.items() if count > 0]
    if not filled:
        raise InputError(f"`{source}` has no rows.")
    train = filled[0] if len(filled) == 1 else "train"
    if train not in filled:
        names = ", ".join(f"`{split}`" for split in filled)
        raise InputError(f"`{source}` has no split `train` among its splits {names}.")
    return train, next((split for split in _TEST_SPLITS if split in filled and split != train), None)


def _make_parts(
    used: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    fingerprints: Mapping[str, str],
    train: str,
    test: str | None,
    test_fraction: float,
    seed: int,
) -> Mapping[str, Part]:
    if test is None:
        kept, held = hold_out(labels[train], test_fraction, seed, "test")
        if len(held) == 0:
            raise InputError("a test split cannot be held out of classes that have one row each: give more rows.")
    else:
        kept, held = (np.arange(len(labels[split]), dtype=np.int32) for split in (train, test))

    def make_part(split: str, numbers: np.ndarray) -> Part:
        chosen = labels[split][numbers]
        return Part(used[split], split, numbers, chosen, fingerprint_rows(fingerprints[split], numbers, chosen))

    return {"train": make_part(train, kept), "test": make_part(test or train, held)}
