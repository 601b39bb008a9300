"""The records that opening and decoding a data set return."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8


@dataclass(frozen=True)
class DataInfo:
    """The properties of a data set that are known before its images are decoded.

    **Arguments:**

    - `name`: a short name that can be part of a folder's name.
    - `source`: opens the data set again, from any working directory.
    - `class_names`: the names in the order of the labels.
    - `channels`: 1 if every training image is gray, else 3.
    - `image_size`: `(height, width)` if all training images share one size; `None` if they differ, or are so small that
        they should be resized to the network's input (`digits`).
    - `splits`: the number of rows of each split of the source, under the source's own names.
    - `test_split`: the name of the test split; `None` if a part of the training split is held out for it.
    - `fingerprint`: a digest of the encoded images, labels and class names of both splits. The same files in the same
        order have the same fingerprint on every machine and in every layout; a changed image, label or name changes it.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int] | None
    splits: Mapping[str, int]
    test_split: str | None
    fingerprint: str


@dataclass(frozen=True)
class Split:
    """The decoded images and labels of a split; `skipped` is the number of bad rows that were left out."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]
    skipped: int
