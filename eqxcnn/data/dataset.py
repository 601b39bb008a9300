"""A data set made of tables: its columns, classes, sizes and fingerprint, and the decoding of its rows."""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError
from ..images.decode import DECODER_VERSION
from ..images.opening import MAX_PIXELS, max_pixels
from ..images.preprocess import Preprocess
from .batches import hold_out
from .cache import Chunk, cache_root, open_entry, open_or_build
from .columns import find_image_column, find_label_column, read_labels
from .encoded import EncodedImages
from .fingerprint import digest_values, fingerprint_images, fingerprint_rows, is_large
from .headers import find_size_and_channels
from .parts import Part, check_bad_rows, decode_part, labeled_rows
from .pixels import count_dims, find_scale
from .records import DataInfo, DataSet, Split, check_decode_arguments, choose_preprocess
from .row_sources import TableRows
from .sources import Source
from .splits import choose_test, choose_train

if TYPE_CHECKING:
    from datasets import Dataset
else:
    from typing import Any as Dataset

__all__ = ["TableDataSet", "from_tables"]

#: Number of images whose content is part of the fingerprint of a set that is opened with `quick`.
_SAMPLES = 1000


@dataclass(frozen=True)
class TableDataSet(DataSet):
    """A data set whose images are a column of tables; see `from_tables`.

    **Arguments:**

    - `parts`: the rows of `train` and `test`.
    - `image_column`, `label_column`: the names of the columns.
    - `scale`: the factor for a column of pixels; see `decode_rows`.
    - `own_size`: the `(height, width)` that all training images share, or `None`.
    """

    parts: Mapping[str, Part]
    image_column: str
    label_column: str
    scale: int
    own_size: tuple[int, int] | None
    _use_cache: bool

    def decode(
        self,
        split: Literal["train", "test"],
        *,
        image_size: tuple[int, int] | None = None,
        channels: int | None = None,
        preprocess: Preprocess | None = None,
        on_bad_image: Literal["stop", "skip"] = "stop",
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> Split:
        """Returns the images of a split as `uint8[n h w c]`, with their labels.

        The images are decoded once; later calls memory-map the cache's file. See `load` for the arguments.
        """
        check_decode_arguments(split, on_bad_image)
        preprocess = choose_preprocess(self.own_size, self.info, preprocess, image_size, channels)
        part = self.parts[split]

        def chunks() -> Generator[Chunk, None, None]:
            title = f"{self.info.name}/{split}" if progress else None
            return decode_part(part, self.image_column, preprocess, on_bad_image, title, self.scale)

        if not self._use_cache:
            images, labels, skipped = zip(*chunks(), strict=True)
            return Split(np.concatenate(images), np.concatenate(labels), self.info.class_names, sum(map(len, skipped)))
        key, shape = self._cache_key(split, preprocess, on_bad_image), (*preprocess.size, preprocess.channels)
        entry = open_or_build(cache_root(cache_dir), key, len(part.numbers), shape, chunks)
        return Split(entry.images, entry.labels, self.info.class_names, len(entry.skipped))

    def find_decoded(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split | None:
        """Returns the images of a split if they were decoded before; see `DataSet.find_decoded`."""
        check_decode_arguments(split, on_bad_image)
        if not self._use_cache:
            return self.decode(split, preprocess=preprocess, on_bad_image=on_bad_image, progress=False)
        folder = cache_root() / self._cache_key(split, preprocess, on_bad_image)
        entry = open_entry(folder, (*preprocess.size, preprocess.channels))
        return entry and Split(entry.images, entry.labels, self.info.class_names, len(entry.skipped))

    def stream(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split:
        """Returns the images of a split, decoded each time they are read; see `DataSet.stream`."""
        check_decode_arguments(split, on_bad_image)
        part = self.parts[split]
        numbers, labels, unlabeled = labeled_rows(part)
        check_bad_rows(unlabeled, part, on_bad_image)
        rows = TableRows(part.rows, self.image_column)
        images = EncodedImages(rows, part.split, numbers, preprocess, self.scale, on_bad_image)
        return Split(images, labels, self.info.class_names, len(unlabeled))

    def _cache_key(self, split: str, preprocess: Preprocess, on_bad_image: str) -> str:
        limit, shape = max_pixels(), (*preprocess.size, preprocess.channels)
        # The limit on pixels determines which rows are skipped, so a limit other than the default is part of the key.
        more = () if limit == MAX_PIXELS or on_bad_image == "stop" else (limit,)
        more += () if self.scale == 1 else ("scale", self.scale)
        more += preprocess.cache_key
        digest = digest_values(DECODER_VERSION, self.parts[split].fingerprint, shape, on_bad_image, *more)
        name = re.sub(r"[^\w.-]", "_", self.info.name)[:40]
        return f"{name}-{split}-{'x'.join(map(str, shape))}-{digest[:16]}"


def from_tables(
    splits: Mapping[str, Dataset],
    place: Source,
    *,
    name: str,
    source: str,
    test_fraction: float,
    seed: int,
    quick: bool | None = False,
) -> DataSet:
    """Makes a data set from tables: finds splits, columns, classes, image size and channels; computes the fingerprint.

    **Arguments:**

    - `splits`: the tables by split, undecoded.
    - `place`: the source of the tables, with its known properties and the caller's choices.
    - `name`: the data set's short name.
    - `source`: the text that opens the data set again and names it in messages.
    - `test_fraction`, `seed`, `quick`: see `open_source`.

    **Raises:** `InputError` with a one-sentence message if the tables cannot be used.
    """
    counts = {split: len(rows) for split, rows in splits.items()}
    train, test, images, target = _choose(splits, counts, place, source)
    used = {split: splits[split] for split in (train, test) if split is not None}
    class_names, labels = read_labels(used, target)
    scale = find_scale(splits[train], images) if count_dims(splits[train].features[images]) else 1
    quick = any(is_large(rows, images) for rows in used.values()) if quick is None else quick
    fingerprints = {split: _fingerprint(place, rows, images, quick) for split, rows in used.items()}
    size = place.image_size
    found = find_size_and_channels(splits[train], images, fingerprints[train], size, place.channels, quick=quick)
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
        varies_in_size=size is None,
        is_sampled=quick,
    )
    # The digits are not cached: they are in memory, and decoding them is faster than opening a cache.
    return TableDataSet(info, parts, images, target, scale, size, _use_cache=not place.is_digits)


def _choose(
    splits: Mapping[str, Dataset], counts: Mapping[str, int], place: Source, source: str
) -> tuple[str, str | None, str, str]:
    """Returns the names of the training split, the test split, the image column and the label column."""
    train = choose_train(source, counts, place.test_split)
    features = splits[train].features
    images = find_image_column(features, place.image_column)
    target = find_label_column(features, place.label_column)
    test = choose_test(source, splits, train, target, place.test_split)
    if test is not None and images not in splits[test].column_names:
        raise InputError(f"split `{test}` of `{source}` has no column `{images}`, but split `{train}` has.")
    return train, test, images, target


def _fingerprint(place: Source, rows: Dataset, column: str, quick: bool) -> str:
    # The digits' encoded bytes depend on the installed version of Pillow, but their pixels never change.
    if place.is_digits:
        return "digits"
    return fingerprint_images(rows, column, use_notes=place.rows is None, samples=_SAMPLES if quick else None)


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
            raise InputError("no test split can be held out, because each class has only one row: give more rows.")
    else:
        kept, held = (np.arange(len(labels[split]), dtype=np.int32) for split in (train, test))

    def make_part(split: str, numbers: np.ndarray) -> Part:
        chosen = labels[split][numbers]
        return Part(used[split], split, numbers, chosen, fingerprint_rows(fingerprints[split], numbers, chosen))

    return {"train": make_part(train, kept), "test": make_part(test or train, held)}
