"""Records that describe an opened or a decoded data set, and the interface of every data set."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from ..errors import InputError
from ..images.preprocess import Preprocess
from .encoded import EncodedImages

__all__ = ["DataInfo", "DataSet", "ImageArray", "Split", "check_decode_arguments", "choose_preprocess"]

#: Images of a split: `uint8` from 0 to 255; arrays passed from Python may be floating point from 0 to 1.
ImageArray: TypeAlias = UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class DataInfo:
    """The properties of a data set that are known before its images are decoded.

    **Arguments:**

    - `name`: a short name that can be part of a folder's name.
    - `source`: the text that opens the data set again, from any working directory; `own` for data passed from Python.
    - `class_names`: the names of the classes, in the order of their numbers.
    - `channels`: 1 if every training image is gray, else 3.
    - `image_size`: `(height, width)` if all training images share one size; `None` if they differ, or are so small that
        they should be resized to the network's input (`digits`).
    - `splits`: the number of rows of each split of the source, under the source's own names.
    - `test_split`: the name of the test split; `None` if a part of the training split is held out for testing.
    - `fingerprint`: a digest of the encoded images, labels and class names of both splits. The same files in the same
        order have the same fingerprint on every machine and in every layout; a changed image, label or name changes it.
    - `varies_in_size`: whether training images differ in size, as photographs do.
    - `is_sampled`: whether only a sample of the images was read, because reading all would take long. The fingerprint
        then depends on the sizes of all images and the content of a thousand images, and `channels` and `image_size`
        describe only a sample.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int] | None
    splits: Mapping[str, int]
    test_split: str | None
    fingerprint: str
    varies_in_size: bool = False
    is_sampled: bool = False


@dataclass(frozen=True)
class Split:
    """The images and labels of a split; `skipped` is the number of bad rows that were left out.

    The images are an array; if `DataSet.stream` made the split, they are decoded each time they are read.
    """

    images: ImageArray | EncodedImages
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]
    skipped: int

    @property
    def array(self) -> ImageArray:
        """All images as one array, decoded now if they are not yet."""
        return self.images[:] if isinstance(self.images, EncodedImages) else self.images

    def without_unreadable(self) -> "Split":
        """Returns the split without unreadable images, if these are skipped; decodes all images to find them."""
        if not isinstance(self.images, EncodedImages) or self.images.on_bad_image == "stop":
            return self
        rows = self.images.find_readable()
        skipped = self.skipped + len(self.labels) - len(rows)
        return Split(self.images.with_rows(rows), self.labels[rows], self.class_names, skipped)


@dataclass(frozen=True)
class DataSet(abc.ABC):
    """An opened data set; see `open_source`, `from_arrays` and `from_dataset`."""

    info: DataInfo

    @abc.abstractmethod
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
        """Returns the images of a split, with their labels.

        The first call decodes encoded images and resizes arrays; later calls memory-map the cache's file. See `load`
        for the arguments.
        """

    @abc.abstractmethod
    def find_decoded(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split | None:
        """Returns the same as `decode` if the images are in memory or in the default cache, and `None` otherwise."""

    @abc.abstractmethod
    def stream(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split:
        """Returns the images of a split, decoded each time they are read.

        This saves space if the decoded images would be large. Rows without a label are left out if `on_bad_image` is
        `skip`; unreadable images are found while reading. For arrays from Python, which need no decoding, this method
        returns the same as `decode`.

        **Raises:** `InputError` for a row without a label, unless `on_bad_image` is `skip`.
        """


def choose_preprocess(
    own: tuple[int, int] | None,
    info: DataInfo,
    preprocess: Preprocess | None,
    image_size: tuple[int, int] | None,
    channels: int | None,
) -> Preprocess:
    """Returns the preprocessing that the arguments of `DataSet.decode` ask for.

    **Arguments:**

    - `own`: the size of the data set's images, if all have the same size.

    **Raises:** `InputError` for an invalid or missing size, and for arguments that contradict each other.
    """
    if preprocess is not None:
        if image_size is not None or channels is not None:
            raise InputError("`preprocess` sets size and channels: leave out `image_size` and `channels`.")
        return preprocess
    size = image_size or own
    if size is None:
        raise InputError(f"the images of `{info.name}` differ in size: give an `image_size`.")
    if min(size) < 1:
        raise InputError(f"`image_size` (={size}) must be a height and a width of at least 1 pixel.")
    return Preprocess(size, info.channels if channels is None else channels)


def check_decode_arguments(split: str, on_bad_image: str) -> None:
    """Checks the arguments of `DataSet.decode`.

    **Raises:** `InputError`.
    """
    if split not in ("train", "test"):
        raise InputError(f"`split` (=`{split}`) must be `train` or `test`.")
    if on_bad_image not in ("stop", "skip"):
        raise InputError(f"`on_bad_image` (=`{on_bad_image}`) must be `stop` or `skip`.")
