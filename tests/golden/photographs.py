"""The photographs whose preprocessing is recorded: scikit-learn's two, and some of `cats_vs_dogs`."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_sample_images

#: The rows and columns that are stored of each result of 224 x 224 pixels: the edges and every 16th between them.
KEPT = (*range(0, 224, 16), 223)
#: Left, top, right and bottom edges of parts of 640 x 427 pixels: large, small, square, wide and tall ones.
_PARTS = ((0, 0, 640, 427), (10, 100, 640, 330), (100, 0, 401, 427), (0, 0, 301, 301), (50, 0, 99, 427))


@cache
def samples() -> tuple[Image.Image, ...]:
    """Returns the photographs that come with scikit-learn, as RGB images of 640 x 427 pixels."""
    return tuple(Image.fromarray(pixels) for pixels in load_sample_images().images)


def parts() -> list[Image.Image]:
    """Returns crops of the sample photographs, and one sample photograph in gray."""
    return [image.crop(part) for image in samples() for part in _PARTS] + [samples()[0].convert("L")]


def cats_and_dogs(root: str) -> list[bytes]:
    """Returns the files of the test split, given the folder of the data set."""
    (file,) = Path(root, "data").glob("test-*.parquet")
    return [row["bytes"] for row in pq.read_table(file, columns=["image"]).column("image").to_pylist()]


def decode(file: bytes) -> Image.Image:
    """Returns the image in an encoded file."""
    return Image.open(io.BytesIO(file))


def choose(files: list[bytes], count: int) -> list[int]:
    """Returns `count` file numbers: the widest, tallest, smallest, square and grayest photographs, and random ones."""
    images = [decode(file) for file in files]
    ratios = np.array([image.width / image.height for image in images])
    grayness = [np.ptp(np.asarray(image, np.int16), axis=-1).mean() for image in images]
    chosen = {*np.argsort(ratios)[:12], *np.argsort(ratios)[-12:], *np.argsort(grayness)[:12]}
    chosen |= {*np.argsort([min(image.size) for image in images])[:12], *np.flatnonzero(ratios == 1)}
    others = (number for number in np.random.default_rng(0).permutation(len(files)) if number not in chosen)
    return sorted(int(number) for number in [*chosen, *(next(others) for _ in range(count - len(chosen)))])


def keep(pixels: np.ndarray) -> np.ndarray:
    """Picks the pixels that the golden file stores, `uint8[15 15 3]`, from a result `uint8[224 224 3]`."""
    return pixels[np.ix_(KEPT, KEPT)]
