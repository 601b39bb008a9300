"""The records that `inspect_data` returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .scan import Unreadable

__all__ = ["Column", "DataReport", "ImageRow", "PartReport", "PixelStatistics", "Repeats", "Size", "Sizes", "SplitUse"]

#: Height and width in pixels.
Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class SplitUse:
    """A split of the source: its name, its number of rows, and its use."""

    name: str
    rows: int
    use: Literal["train", "test", "train and test", "none"]


@dataclass(frozen=True)
class Column:
    """A column of the training split: its name, its type, and its role (if any)."""

    name: str
    type: str
    role: Literal["image", "label"] | None


@dataclass(frozen=True)
class Sizes:
    """The sizes of images, ordered by area.

    - `distinct`: the number of different sizes.
    - `frequent`: the most frequent sizes, each with its number of images.
    """

    distinct: int
    smallest: Size
    median: Size
    largest: Size
    frequent: tuple[tuple[Size, int], ...]


@dataclass(frozen=True)
class PartReport:
    """The training rows or the test rows of a data set.

    **Arguments:**

    - `split`: the source's split that contains the rows.
    - `rows`, `decoded`: the number of rows, and the number of rows that were decoded for the rest of the report.
    - `class_counts`: the number of rows of each class, in the order of the class names.
    - `unlabeled`: the number of rows without a label.
    - `gray`, `color`: the numbers of decoded images with one channel, and with more channels.
    - `sizes`: the sizes of the images; `None` if no image can be read.
    - `unreadable`: the images that cannot be decoded.
    """

    split: str
    rows: int
    decoded: int
    class_counts: tuple[int, ...]
    unlabeled: int
    gray: int
    color: int
    sizes: Sizes | None
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class ImageRow:
    """An image in an example: its split and row, its class (`None` without a label), and its file's name if known."""

    split: str
    row: int
    class_name: str | None
    file: str | None


@dataclass(frozen=True)
class Repeats:
    """Images that occur more than once.

    **Arguments:**

    - `same_pixels`: the number of images with the same size and decoded pixels as another image.
    - `same_file`: the number of images with the same encoded file as another image.
    - `examples`: some rows of each of the first few repeated images.
    """

    same_file: int
    same_pixels: int
    examples: tuple[tuple[ImageRow, ...], ...]


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation per channel on the scale [0, 1], of the training images resized to `size`."""

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataReport:
    """The result of `inspect_data`.

    **Arguments:**

    - `name`, `source`, `class_names`, `fingerprint`: see `DataInfo`.
    - `splits`, `columns`: all splits of the source, and all columns of the training split.
    - `parts`: the training rows and the test rows, under the keys `train` and `test`.
    - `repeats`: repeated images by kind. `train` and `test` count the rows that repeat an earlier row of the same part;
        `leaked` counts the test rows whose image is also a training image; `conflicting` counts the rows whose image
        also occurs with a different label.
    - `pixels`: statistics of the training images; `None` if none of them can be read.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    fingerprint: str
    splits: tuple[SplitUse, ...]
    columns: tuple[Column, ...]
    parts: Mapping[str, PartReport]
    repeats: Mapping[str, Repeats]
    pixels: PixelStatistics | None
