"""What opening and decoding a data set give."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8


@dataclass(frozen=True)
class DataInfo:
    """What opening a data set tells, before anything is decoded.

    **Arguments:**

    - `name`: a short name, fit for a folder's.
    - `source`: what opens it again, from another working directory too.
    - `class_names`: in the order of the labels.
    - `channels`: 1 when every image looked at is gray, else 3.
    - `image_size`: `(height, width)` when all images looked at have one size; `None` when they differ, or are so small
        that they should take the network's (`digits`).
    - `splits`: how many rows the source has, by its own names of its splits.
    - `test_split`: which of them is the test split; `None` when a part of the training split is held out for it.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int] | None
    splits: Mapping[str, int]
    test_split: str | None


@dataclass(frozen=True)
class Split:
    """A split's images and labels, decoded; `skipped` counts the bad rows that were left out."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]
    skipped: int
