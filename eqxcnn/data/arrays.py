"""Data sets made from arrays: `from_arrays` checks and fingerprints them."""

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from ..errors import InputError
from ..images.decode import DECODER_VERSION
from ..images.preprocess import Preprocess
from .array_checks import check_images, check_same_kind, name_classes, number_labels
from .batches import hold_out
from .cache import Chunk, cache_root, open_or_build
from .fingerprint import digest_values, fingerprint_rows
from .parts import progress_bar
from .records import DataInfo, DataSet, ImageArray, Split, check_decode_arguments, choose_preprocess
from .sources import check_name

__all__ = ["ArrayDataSet", "ArrayPart", "from_arrays"]

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class ArrayPart:
    """One part of a data set: the images at `rows`, or all of `images` if `rows` is `None`, and their labels."""

    images: ImageArray
    rows: Int32[np.ndarray, " k"] | None
    labels: Int32[np.ndarray, " k"]
    fingerprint: str

    def read(self) -> ImageArray:
        """Returns the part's images, without a copy if `rows` is `None`."""
        return self.images if self.rows is None else self.images[self.rows]


@dataclass(frozen=True)
class ArrayDataSet(DataSet):
    """A data set of arrays; see `from_arrays`."""

    _parts: Mapping[str, ArrayPart]

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

        If the arrays do not have the requested size or number of channels, the images are converted in the same way as
        image files, and cached.

        **Raises:** `InputError` if arrays in floating point would have to be resized or converted.
        """
        _, *own = self._parts["train"].images.shape
        check_decode_arguments(split, on_bad_image)
        preprocess = choose_preprocess(self.info.image_size, self.info, preprocess, image_size, channels)
        shape, part = (*preprocess.size, preprocess.channels), self._parts[split]
        if list(shape) == own and preprocess.crop_fraction == 1:
            return Split(part.read(), part.labels, self.info.class_names, 0)
        if part.images.dtype != np.uint8:
            ours, wanted = ("x".join(map(str, each)) for each in (own, shape))
            raise InputError(
                f"the images of `{self.info.name}` are {ours} in floating point and are not converted to {wanted}: "
                "convert them yourself, give `uint8`, or choose a model or an `image_size` that fits them."
            )

        def chunks() -> Generator[Chunk, None, None]:
            return _convert(part, preprocess, f"{self.info.name}/{split}" if progress else None)

        digest = digest_values("array", DECODER_VERSION, part.fingerprint, shape, *preprocess.cache_key)
        key = f"{self.info.name}-{split}-{'x'.join(map(str, shape))}-{digest[:16]}"
        entry = open_or_build(cache_root(cache_dir), key, len(part.labels), shape, chunks)
        return Split(entry.images, entry.labels, self.info.class_names, 0)

    def find_decoded(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split | None:
        """Returns the same as `decode`, because the images are arrays already."""
        return self.decode(split, preprocess=preprocess, on_bad_image=on_bad_image)

    def stream(
        self,
        split: Literal["train", "test"],
        *,
        preprocess: Preprocess,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> Split:
        """Returns the same as `decode`, because the images are arrays already."""
        return self.decode(split, preprocess=preprocess, on_bad_image=on_bad_image)


def from_arrays(
    images: Any,
    labels: Any,
    *,
    test: tuple[Any, Any] | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "own",
    test_fraction: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """Makes a data set from NumPy or JAX arrays.

    The arrays are not copied, so do not change them afterwards. A held-out part is copied when it is used.

    **Arguments:**

    - `images`: `[n h w c]` with 1 or 3 channels, or gray `[n h w]`: `uint8`, or floating point in [0, 1], which is
        kept as float32.
    - `labels`: `[n]`, integers from 0 to k - 1, or strings. Strings are class names; the classes are sorted by name.
    - `test`: a pair of test images and labels, given in the same form; by default a part of the images is held out.
    - `class_names`: the name of each class, in the order of the integers; by default the integers themselves. If
        the labels are strings, this argument sets the order of the classes.
    - `name`: the data set's name, which becomes part of the names of runs.
    - `test_fraction`, `seed`: see `open_source`.

    **Raises:** `InputError` with a one-sentence message for arrays that no classifier can be trained on.
    """
    check_name(name)
    pixels = check_images(images, "images")
    names = name_classes(labels, class_names)
    numbers = number_labels(labels, names, "labels", len(pixels))
    whole = _fingerprint(pixels)
    if test is None:
        kept, held = hold_out(numbers, test_fraction, seed, "test")
        if len(held) == 0:
            raise InputError("no test split can be held out, because each class has only one image: give `test`.")
        parts = {
            split: ArrayPart(pixels, rows, numbers[rows], fingerprint_rows(whole, rows, numbers[rows]))
            for split, rows in (("train", kept), ("test", held))
        }
    else:
        test_pixels, test_numbers = _check_test(test, pixels, numbers, names)
        parts = {
            "train": _whole_part(pixels, numbers, whole),
            "test": _whole_part(test_pixels, test_numbers, _fingerprint(test_pixels)),
        }
    height, width, channels = pixels.shape[1:]
    splits = {"train": len(pixels)} if test is None else {split: len(part.labels) for split, part in parts.items()}
    fingerprint = digest_values(names, *(part.fingerprint for part in parts.values()))
    test_split = None if test is None else "test"
    return ArrayDataSet(DataInfo(name, "own", names, channels, (height, width), splits, test_split, fingerprint), parts)


def _check_test(
    test: Any, pixels: np.ndarray, numbers: Int32[np.ndarray, " train"], names: tuple[str, ...]
) -> tuple[ImageArray, Int32[np.ndarray, " n"]]:
    if not isinstance(test, tuple) or len(test) != 2:
        raise InputError("`test` must be a pair of images and labels.")
    test_pixels = check_images(test[0], "test images")
    check_same_kind(pixels, test_pixels)
    test_numbers = number_labels(test[1], names, "test labels", len(test_pixels))
    unknown = sorted(set(test_numbers.tolist()) - set(numbers.tolist()))
    if unknown:
        raise InputError(f"the test labels contain the class `{names[unknown[0]]}`, which has no training images.")
    return test_pixels, test_numbers


def _whole_part(pixels: ImageArray, numbers: Int32[np.ndarray, " n"], fingerprint: str) -> ArrayPart:
    every = np.arange(len(numbers), dtype=np.int32)
    return ArrayPart(pixels, None, numbers, fingerprint_rows(fingerprint, every, numbers))


def _rows_per_chunk(image_bytes: int) -> int:
    return max(1, _CHUNK_BYTES // image_bytes)


def _fingerprint(pixels: ImageArray) -> str:
    content, rows = hashlib.sha256(), _rows_per_chunk(pixels[0].nbytes)
    for start in range(0, len(pixels), rows):
        content.update(np.ascontiguousarray(pixels[start : start + rows]).data)
    return digest_values("array", str(pixels.dtype), pixels.shape, content.hexdigest())


def _convert(part: ArrayPart, preprocess: Preprocess, title: str | None) -> Generator[Chunk, None, None]:
    from PIL import Image

    def convert(row: int) -> np.ndarray:
        pixels = part.images[row]
        return preprocess(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))

    rows = np.arange(len(part.labels)) if part.rows is None else part.rows
    shape = (*preprocess.size, preprocess.channels)
    size = _rows_per_chunk(int(np.prod(shape)))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, progress_bar(title, len(rows), shape) as advance:
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            yield np.stack(list(pool.map(convert, chunk.tolist()))), part.labels[start : start + size], []
            advance(len(chunk))
