"""Data sets by name: `open_source` opens a data set, `load` returns the arrays of a split."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..images.preprocess import Preprocess
from .dataset import from_tables
from .reading import read_rows, say_when_slow
from .records import DataSet, Split
from .sources import find_source
from .stream_reading import read_streams
from .streams import from_streams

__all__ = ["load", "open_source"]


def open_source(
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    quick: bool | None = False,
    streaming: bool = False,
) -> DataSet:
    """Opens a data set: finds its splits, columns, classes, image size and channels, and computes its fingerprint.

    The training split is `train`, or the only split. The test split is `test`, else `validation` (or `valid`, `val`),
    else a part of the training split, with the same fraction of each class. Image size and channels come from the
    training split; test images are converted to the same size and channels. A split without labels is not used for
    testing; a line on standard error says so.

    **Arguments:**

    - `source`: a name in `SOURCES` or added by `register`, a local folder (parquet, `save_to_disk`, or class folders of
        images), or a Hub id `org/name` or `org/name:config`; see `find_source`.
    - `image_column`, `label_column`: the columns to use; by default found by their types and usual names.
    - `test_split`: the split to test on, or the folder with the class folders of the test images; by default, chosen as
        described above.
    - `test_fraction`, `seed`: the fraction of the training split to hold out if there is no test split, and the seed of
        that choice. The training seed has no effect on the choice, so runs with several seeds are tested on the same
        images.
    - `quick`: whether to read only a sample of the images instead of all; see `DataInfo.is_sampled`. `None` reads a
        sample if the encoded images take 1 GiB or more.
    - `streaming`: whether to read a Hub data set, or shards in a folder, again in every epoch instead of keeping a
        copy; only the labels are read at the start and kept.

    **Raises:** `InputError` if the source cannot be used.
    """
    name, place = find_source(source)
    place = replace(
        place,
        image_column=image_column or place.image_column,
        label_column=label_column or place.label_column,
        test_split=test_split or place.test_split,
    )
    if streaming:
        streams = read_streams(place)
        return from_streams(streams, place, name=name, source=source, test_fraction=test_fraction, seed=seed)
    with say_when_slow(source):
        return from_tables(
            read_rows(place), place, name=name, source=source, test_fraction=test_fraction, seed=seed, quick=quick
        )


def load(
    source: str,
    split: Literal["train", "test"],
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    preprocess: Preprocess | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    cache_dir: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    test_split: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    progress: bool = True,
) -> Split:
    """Returns the images and labels of a split: `open_source` and `DataSet.decode` in one call.

    **Arguments:**

    - `source`, `image_column`, `label_column`, `test_split`, `test_fraction`, `seed`: see `open_source`.
    - `split`: `train` or `test`.
    - `image_size`: the `(height, width)` to resize every image to; by default the images' own, if they share one size.
    - `channels`: 1 or 3; by default the images' own.
    - `preprocess`: size, channels and the way of resizing, instead of `image_size` and `channels`.
    - `on_bad_image`: `stop` raises an error at the first image that is unreadable or unlabeled; `skip` leaves it out.
    - `cache_dir`: the folder for decoded images; by default `$EQXCNN_CACHE`, else `eqxcnn` in the user's cache folder.
    - `progress`: whether to show progress on standard error: a bar, or a line if there is no terminal.
    """
    opened = open_source(
        source,
        image_column=image_column,
        label_column=label_column,
        test_split=test_split,
        test_fraction=test_fraction,
        seed=seed,
    )
    return opened.decode(
        split,
        image_size=image_size,
        channels=channels,
        preprocess=preprocess,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
        progress=progress,
    )
