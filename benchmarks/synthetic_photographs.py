"""Writes synthetic photographs, which take as long to read and to decode as real photographs of the same size."""

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from eqxcnn.errors import InputError
from eqxcnn.weights import write_text_atomically

#: Width and height in pixels of a photograph, typical for ImageNet, and of the textures that it is made of.
SIZE, _TEXTURE_SIZE = (500, 375), (1200, 900)
_NUM_TEXTURES = 24
#: Amplitudes fall with this power of the frequency, about as in photographs; a JPEG then has about 100 kB.
_FALLOFF = 1.1
_QUALITY = 90
#: Records the content of the folder; data sets skip hidden files.
_MARKER = ".photographs.json"
_ROWS_PER_FILE = 1000


@dataclass(frozen=True)
class Photographs:
    """A set of synthetic photographs; their classes are arbitrary.

    - `count`: the number of training photographs.
    - `test_count`: the number of test photographs.
    - `classes`: the number of classes.
    - `layout`: class folders or parquet files.
    """

    count: int
    test_count: int
    classes: int
    layout: Literal["folders", "parquet"]

    def write(self, folder: Path) -> None:
        """Writes the photographs, unless the folder holds them already.

        **Raises:** `InputError` if the folder holds other photographs or other files.
        """
        marker = folder / _MARKER
        if marker.is_file():
            found = json.loads(marker.read_text(encoding="utf-8"))
            if found == asdict(self) | {"complete": found.get("complete")}:
                if found["complete"]:
                    return
            else:
                raise InputError(f"`folder` (={folder}) holds other photographs: delete it, or choose another folder")
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(f"`folder` (={folder}) must be new or empty, and it holds other files")
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(marker, json.dumps(asdict(self) | {"complete": False}))
        write = _write_class_folders if self.layout == "folders" else _write_parquet
        for split, first, count in (("train", 0, self.count), ("test", self.count, self.test_count)):
            write(folder, split, range(first, first + count), self.classes)
        write_text_atomically(marker, json.dumps(asdict(self) | {"complete": True}))


def make_photograph(number: int) -> bytes:
    """Returns a JPEG file that blends parts of two random textures; the same number always gives the same file."""
    rng = np.random.default_rng(number)
    parts = []
    for texture in rng.choice(_NUM_TEXTURES, 2, replace=False).tolist():
        left, top = (int(rng.integers(0, whole - side)) for whole, side in zip(_TEXTURE_SIZE, SIZE, strict=True))
        parts.append(_make_texture(texture).crop((left, top, left + SIZE[0], top + SIZE[1])))
    file = io.BytesIO()
    Image.blend(parts[0], parts[1], float(rng.uniform(0.1, 0.5))).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


@cache
def _make_texture(number: int) -> Image.Image:
    """Returns noise with the spectrum of photographs; the color of the noise varies less than its brightness."""
    rng, (width, height) = np.random.default_rng([_NUM_TEXTURES, number]), _TEXTURE_SIZE
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = np.inf
    channels = []
    for deviation in (60.0, 15.0, 15.0):
        real, imaginary = rng.normal(size=(2, *frequencies.shape))
        noise = np.fft.irfft2((real + 1j * imaginary) / frequencies**_FALLOFF, (height, width))
        channels.append(128 + noise * (deviation / noise.std()))
    pixels = np.stack(channels, -1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "YCbCr").convert("RGB")


def _make_photographs(numbers: range) -> Iterator[tuple[int, bytes]]:
    """Makes photographs in threads, and yields them with their numbers; all photographs must fit into memory."""
    for texture in range(_NUM_TEXTURES):
        _make_texture(texture)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from zip(numbers, pool.map(make_photograph, numbers), strict=True)


def _write_class_folders(folder: Path, split: str, numbers: range, classes: int) -> None:
    for label in range(classes):
        target = folder / split / f"class_{label:03d}"
        target.mkdir(parents=True, exist_ok=True)
        for number, photograph in _make_photographs(numbers[label::classes]):
            (target / f"{number:06d}.jpg").write_bytes(photograph)


def _write_parquet(folder: Path, split: str, numbers: range, classes: int) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"class_{label:03d}" for label in range(classes)]
    features: Any = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    starts = range(0, len(numbers), _ROWS_PER_FILE)
    for file, start in enumerate(starts):
        rows = [
            {"image": {"bytes": photograph, "path": None}, "label": number % classes}
            for number, photograph in _make_photographs(numbers[start : start + _ROWS_PER_FILE])
        ]
        table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
        # `datasets` finds the split in the file's name.
        pq.write_table(table, folder / f"{split}-{file:05d}-of-{len(starts):05d}.parquet")
