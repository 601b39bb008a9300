"""A data set that is read from the Hub or from shards during training, without a copy on this machine."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int32

from ..errors import InputError, printable
from ..images.preprocess import Preprocess
from .batches import hold_out
from .cache import read_note, write_note
from .columns import find_image_column, find_label_column, read_labels
from .encoded import EncodedImages
from .fingerprint import digest_values
from .headers import size_and_channels
from .pixels import count_dims
from .records import DataInfo, DataSet, Split, check_decode_arguments
from .row_sources import StreamRows
from .sources import Source
from .splits import TEST_SPLITS, choose_test, choose_train
from .stream_reading import Streams, explain_damage

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
else:
    Dataset = IterableDataset = Any

__all__ = ["StreamedDataSet", "from_streams"]

_BATCH_ROWS = 64
_LABEL_ROWS = 4096
#: The headers of this many rows, at the start of the training split, determine the image size and the channels.
_HEADERS = 256


@dataclass(frozen=True)
class _Part:
    """The rows of a part: their `numbers` in the split, and their labels; `rows` contains the whole split."""

    rows: StreamRows
    split: str
    numbers: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]


@dataclass(frozen=True)
class StreamedDataSet(DataSet):
    """A data set that is read again in every epoch; see `from_streams`."""

    _parts: Mapping[str, _Part]

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
        """Raises an error, because the images of a stream are not kept.

        **Raises:** `InputError`, always.
        """
        raise InputError(
            f"`{self.info.name}` is read as a stream, so its images cannot be decoded once and kept: leave out "
            "`data_streaming`, or set `decode` to `stream`."
        )

    def find_decoded(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split | None:
        """Returns `None`, because the images of a stream are not kept."""
        return None

    def stream(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split:
        """Returns the images of a split, read from the stream and decoded in every pass; see `DataSet.stream`."""
        check_decode_arguments(split, on_bad_image)
        part = self._parts[split]
        has_label = part.labels >= 0
        if not has_label.all() and on_bad_image == "stop":
            raise InputError(
                f"row {part.numbers[~has_label][0]} of split `{part.split}` cannot be used: it has no label (skip such "
                "rows with `--on-bad-image skip`)."
            )
        numbers, labels = part.numbers[has_label], part.labels[has_label]
        images = EncodedImages(part.rows, part.split, numbers, preprocess, 1, on_bad_image)
        return Split(images, labels, self.info.class_names, int((~has_label).sum()))


def from_streams(
    streams: Streams,
    place: Source,
    *,
    name: str,
    source: str,
    test_fraction: float,
    seed: int,
) -> DataSet:
    """Makes a data set from streams; reads all labels once, and keeps them in the cache.

    **Arguments:**

    - `streams`: the splits; see `read_streams`.
    - `place`, `name`, `source`, `test_fraction`, `seed`: see `from_tables`.

    **Raises:** `InputError` if the streams cannot be used.
    """
    splits = streams.splits
    with explain_damage(f"`{source}`"):
        train = choose_train(source, dict.fromkeys(splits, 1), place.test_split)
        # The column types come from the files' metadata, or from the first rows if the metadata has no types.
        features: Any = splits[train].features or splits[train]._resolve_features().features
        images, target = (
            find_image_column(features, place.image_column),
            find_label_column(features, place.label_column),
        )
        if count_dims(features[images]):
            raise InputError(
                f"the column `{images}` of `{source}` holds pixels, and only encoded images can be streamed."
            )
        tests = TEST_SPLITS if place.test_split is None else (place.test_split,)
        labeled = {
            split: _read_labels(streams, split, target, features[target], name)
            for split in splits
            if split == train or split in tests
        }
        test = choose_test(source, labeled, train, target, place.test_split)
        class_names, labels = read_labels({split: labeled[split] for split in (train, test) if split}, target)
        rows = {split: _make_rows(splits[split], images, len(labels[split]), split) for split in labels}
        size, channels = _read_headers(splits[train], images, source)
    parts = _make_parts(rows, labels, train, test, test_fraction, seed)
    digests = [hashlib.sha256(np.stack([part.numbers, part.labels]).tobytes()).hexdigest() for part in parts.values()]
    info = DataInfo(
        name=name,
        source=place.absolute_name(source),
        class_names=class_names,
        channels=place.channels or channels,
        image_size=place.image_size or size,
        splits={split: len(values) for split, values in labels.items()},
        test_split=test,
        fingerprint=digest_values("stream", class_names, digests, *filter(None, [streams.content])),
        varies_in_size=place.image_size is None and size is None,
        is_sampled=True,
    )
    return StreamedDataSet(info, parts)


def _make_parts(
    rows: Mapping[str, StreamRows],
    labels: Mapping[str, np.ndarray],
    train: str,
    test: str | None,
    test_fraction: float,
    seed: int,
) -> Mapping[str, _Part]:
    if test is None:
        kept, held = hold_out(labels[train], test_fraction, seed, "test")
        if len(held) == 0:
            raise InputError("no test split can be held out, because each class has only one row: give more rows.")
    else:
        kept, held = (np.arange(len(labels[split]), dtype=np.int32) for split in (train, test))
    other = test or train
    return {
        "train": _Part(rows[train], train, kept, labels[train][kept]),
        "test": _Part(rows[other], other, held, labels[other][held]),
    }


def _make_rows(stream: IterableDataset, column: str, count: int, split: str) -> StreamRows:
    def open_rows() -> Iterator[Any]:
        # Two passes over one stream of `datasets` share its reading position, and may skip whole shards if they run in
        # two threads. `shard(1, 0)` returns the whole stream with a separate position.
        own = stream.shard(1, 0).select_columns([column]).decode(False)
        for batch in own.iter(_BATCH_ROWS):
            yield from batch[column]

    return StreamRows(open_rows, count, f"split `{split}`")


def _read_labels(streams: Streams, split: str, column: str, feature: Any, name: str) -> Dataset:
    """Returns a table of the labels of a split; reads them from the stream, or from the cache."""
    import datasets

    note = f"labels-{digest_values(streams.identity, split, column)}"
    values = (read_note(note) or {}).get("labels")
    if not isinstance(values, list):
        print(printable(f"reading the labels of {name}/{split} ..."), file=sys.stderr, flush=True)
        whole = streams.splits[split].select_columns([column]).decode(False)
        labels = whole if streams.read_column is None else streams.read_column(split, column)
        values = [value for batch in labels.iter(_LABEL_ROWS) for value in batch[column]]
        write_note(note, {"labels": values})
    return datasets.Dataset.from_dict({column: values}, features=datasets.Features({column: feature}))


def _read_headers(stream: IterableDataset, column: str, source: str) -> tuple[tuple[int, int] | None, int]:
    rows = stream.select_columns([column]).decode(False).take(_HEADERS)
    found = size_and_channels(row[column] for row in rows)
    if found is None:
        raise InputError(f"none of the first {_HEADERS} images of `{source}` can be read.")
    return found
