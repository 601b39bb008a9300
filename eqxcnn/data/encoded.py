"""`EncodedImages`: the images of a large data set, which are decoded each time they are read."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from ..errors import InputError
from ..images.decode import decode_box
from ..images.opening import unreadable_errors
from ..images.preprocess import Preprocess
from .decode import BadRow, describe_bad_image, image_source
from .row_sources import RowSource, StreamRows

__all__ = ["ChooseBox", "EncodedImages"]

#: Called with an image's height and width; returns top, left, height and width of a box.
ChooseBox = Callable[[int, int], tuple[int, int, int, int]]


@dataclass(frozen=True)
class EncodedImages:
    """The images of a part of a data set, decoded each time they are read.

    Can be indexed like an array `uint8[n h w c]`: `images[rows]` decodes the images at these rows in threads.

    **Arguments:**

    - `rows`: the image column of the source's split.
    - `split`: the split's name in the source.
    - `numbers`: each image's row number in `rows`.
    - `preprocess`: size, channels and way of resizing.
    - `scale`: the factor for a column of pixels, from `pixels.find_scale`.
    - `on_bad_image`: `skip` leaves unreadable images out of batches; `stop` makes them errors.
    """

    rows: RowSource
    split: str
    numbers: Int32[np.ndarray, " n"]
    preprocess: Preprocess
    scale: int
    on_bad_image: Literal["stop", "skip"]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of images, height, width and channels."""
        return (len(self.numbers), *self.preprocess.size, self.preprocess.channels)

    @property
    def is_stream(self) -> bool:
        """Whether the images are read forward, from a stream."""
        return isinstance(self.rows, StreamRows)

    @property
    def ndim(self) -> int:
        """Number of dimensions, 4."""
        return 4

    @property
    def dtype(self) -> np.dtype:
        """The type of the pixels, `uint8`."""
        return np.dtype(np.uint8)

    @property
    def itemsize(self) -> int:
        """Bytes per pixel and channel, 1."""
        return 1

    @property
    def nbytes(self) -> int:
        """Size of all decoded images, in bytes."""
        return int(np.prod(self.shape))

    def __getitem__(self, index: Integer[np.ndarray, " k"] | slice) -> UInt8[np.ndarray, "k h w c"]:
        """Returns the images at these positions.

        **Raises:** `InputError` naming the row of an image that cannot be decoded.
        """
        chosen = np.arange(len(self.numbers))[index]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            images = list(pool.map(partial(self._read_strictly, chosen), chosen.tolist()))
        return np.stack(images) if images else np.zeros((0, *self.shape[1:]), np.uint8)

    def readable(self, index: Integer[np.ndarray, " k"]) -> UInt8[np.ndarray, "r h w c"]:
        """Returns the images at these positions; if `on_bad_image` is `skip`, without the unreadable ones.

        **Raises:** `InputError` for an unreadable image, unless `on_bad_image` is `skip`.
        """
        if self.on_bad_image == "stop":
            return self[index]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            images = pool.map(lambda position: self.read(position, -1, lambda: index), index.tolist())
            found = [image for image in images if not isinstance(image, BadRow)]
        return np.stack(found) if found else np.zeros((0, *self.shape[1:]), np.uint8)

    def first_readable(self, index: Integer[np.ndarray, " k"], count: int) -> UInt8[np.ndarray, "r h w c"]:
        """Returns the first `count` images at these positions; if `on_bad_image` is `skip`, the first readable ones.

        **Raises:** `InputError` for an unreadable image, unless `on_bad_image` is `skip`.
        """
        found = self.readable(index[:count])
        for start in range(count, len(index), max(count, 1)):
            if len(found) >= count:
                break
            found = np.concatenate([found, self.readable(index[start : start + count])])
        return found[:count]

    def find_readable(self) -> Int32[np.ndarray, " r"]:
        """Decodes all images, and returns the positions of the readable ones."""
        positions = np.arange(len(self.numbers))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            is_bad = pool.map(
                lambda position: isinstance(self.read(position, -1, lambda: positions), BadRow), positions.tolist()
            )
            return np.flatnonzero(~np.fromiter(is_bad, bool, len(positions))).astype(np.int32)

    def read(
        self, position: int, epoch: int, needed: Callable[[], np.ndarray], choose_box: ChooseBox | None = None
    ) -> UInt8[np.ndarray, "h w c"] | BadRow:
        """Returns the image at a position; if the image cannot be decoded, returns its row and the reason.

        **Arguments:**

        - `epoch`: the number of the pass over the images.
        - `needed`: returns the positions that this pass may still read.
        - `choose_box`: chooses the part of the image to decode; by default `preprocess` decides.
        """
        number, value = int(self.numbers[position]), None
        try:
            value = self.rows.value(number, epoch, lambda: self.numbers[needed()])
            source = image_source(value, self.scale)
            if choose_box is None:
                return self.preprocess.decode(source)
            return decode_box(source, self.preprocess.channels, self.preprocess.size, choose_box)
        except InputError:
            raise
        except unreadable_errors() as error:
            return BadRow(number, describe_bad_image(value, error))

    def refuse(self, bad: BadRow) -> InputError:
        """Returns the error for an image that cannot be decoded."""
        return InputError(
            f"row {bad.row} of split `{self.split}` cannot be used: {bad.reason} (repair it, or skip bad rows with "
            "`--on-bad-image skip`)."
        )

    def with_rows(self, index: Integer[np.ndarray, " k"]) -> "EncodedImages":
        """Returns the images at these positions, still encoded."""
        return replace(self, numbers=self.numbers[index])

    def fresh(self) -> "EncodedImages":
        """Returns a copy of the images; a copy of streamed images has its own reading position."""
        return replace(self, rows=self.rows.fresh())

    def _read_strictly(self, needed: np.ndarray, position: int) -> UInt8[np.ndarray, "h w c"]:
        image = self.read(position, -1, lambda: needed)
        if isinstance(image, BadRow):
            raise self.refuse(image)
        return image
