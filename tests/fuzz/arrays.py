"""Arrays from Python: data sets of arrays, and images for a loaded classifier."""

import random
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

import eqxcnn
from eqxcnn.data import from_arrays
from eqxcnn.inference import ImageClassifier

from .case import Entrance, Silent
from .mutate import HOSTILE
from .weights import prepare_folder

_COUNT = 12
_SHAPES = ((12, 8, 8, 1), (12, 8, 8, 3), (12, 8, 8), (12, 1, 8, 8), (8, 8, 1), (0, 8, 8, 1), (12, 0, 8, 1), ())
_DTYPES = (
    "uint8", "int8", "int64", "float16", "float32", "float64", "bool", "complex64", "U1", "object", "M8[s]", ">f4",
)  # fmt: skip


def _make_images(rng: random.Random) -> Any:
    """Returns images, most of them with an invalid type, an invalid shape or invalid values."""
    if rng.random() < 0.1:
        return rng.choice(HOSTILE)
    base = np.random.default_rng(rng.randrange(2**32))
    shape = _SHAPES[0] if rng.random() < 0.6 else rng.choice(_SHAPES)
    array: Any = base.integers(0, 256, shape, np.uint8)
    if rng.random() < 0.7:
        dtype = rng.choice(_DTYPES)
        array = (array / 255).astype(dtype) if "f" in dtype else array.astype(dtype)
        if "f" in dtype and array.size and rng.random() < 0.5:
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -1, 1.5, 255, -0.0, 1e-40))
    match rng.randrange(9):
        case 0:
            return np.ma.masked_array(array, rng.random() < 0.5)
        case 1:
            return array.tolist()
        case 2:
            return array[..., ::-1] if array.ndim else array
        case 3 if array.dtype.kind in "uif" and array.dtype.isnative:
            return jnp.asarray(array)
        case 4 if array.dtype.kind == "f" and array.dtype.isnative:
            return jnp.asarray(array, jnp.bfloat16)
        case _:
            return array


def _make_labels(rng: random.Random) -> Any:
    labels = [number % 3 for number in range(_COUNT)]
    match rng.randrange(12):
        case 0:
            return rng.choice(HOSTILE)
        case 1:
            labels[rng.randrange(_COUNT)] = rng.choice(HOSTILE)
            return labels
        case 2:
            return [str(label) for label in labels]
        case 3:
            return np.array(labels, rng.choice(_DTYPES))
        case 4:
            return np.ma.masked_array(labels, [True] + [False] * (_COUNT - 1))
        case 5:
            return labels[: rng.randrange(_COUNT)]
        case 6:
            return np.eye(3)[labels]
        case 7:
            return rng.choice(([0] * _COUNT, list(range(_COUNT)), [2**40 + label for label in labels]))
        case _:
            return np.array(labels)


def attack_arrays(rng: random.Random, folder: Path, base: Any) -> None:
    """Accepted arrays must give pixels that are finite and in range, with valid labels, and no image may be missing."""
    images, labels = _make_images(rng), _make_labels(rng)
    more: dict[str, Any] = {}
    if rng.random() < 0.3:
        more["class_names"] = rng.choice(
            (["a", "b", "c"], ["a", "a", "b"], "abc", ["a"], [], ["\x1b", "", "c"], [1, None])
        )
    if rng.random() < 0.3:
        more["test"] = rng.choice(((images, labels), (_make_images(rng), _make_labels(rng)), *HOSTILE))
    if rng.random() < 0.1:
        name, kind = rng.choice((("name", str), ("test_fraction", float), ("seed", int)))
        more[name] = rng.choice([value for value in HOSTILE if isinstance(value, kind)])
    (folder / "case.txt").write_text(ascii((images, labels, more))[:10_000])
    opened = from_arrays(images, labels, **more)
    names, given = opened.info.class_names, np.asarray(images)
    train, test = (opened.decode(split, progress=False) for split in ("train", "test"))
    for part in (train, test):
        most = 255 if part.images.dtype == np.uint8 else 1
        if not (np.isfinite(part.images) & (part.images >= 0) & (part.images <= most)).all():
            raise Silent("pixels that are not finite or out of range were accepted")
        if len(part.images) != len(part.labels) or not ((part.labels >= 0) & (part.labels < len(names))).all():
            raise Silent(f"labels do not fit the images or the classes: {part.labels}")
    if "test" not in more and len(train.images) + len(test.images) != len(given):
        raise Silent(f"images are missing: {len(given)} became {len(train.images) + len(test.images)}")
    if np.ma.is_masked(images) or np.ma.is_masked(labels):
        raise Silent("masked values were accepted as if they were not masked")


def load_classifier(folder: Path) -> ImageClassifier:
    """Returns a small classifier of 8x8 gray images."""
    return eqxcnn.load(prepare_folder(folder)[0])


def attack_calls(rng: random.Random, folder: Path, classifier: ImageClassifier) -> None:
    """A classifier that accepts images must give one row of finite scores for each image."""
    images: Any = _make_images(rng)
    if rng.random() < 0.2:
        images = Image.new(rng.choice(("L", "RGB", "1", "F", "I", "P", "CMYK")), rng.choice(((8, 8), (1, 1), (0, 5))))
    action = rng.randrange(3)
    (folder / "case.txt").write_text(ascii((action, images))[:10_000])
    if action == 0:
        pixels = classifier.prepare(images)
        if pixels.shape != (8, 8, 1) or pixels.dtype != np.uint8:
            raise Silent(f"an image is prepared as another shape: {pixels.shape}")
        return
    if action == 1:
        rows = classifier.top_k(images, k=rng.choice([value for value in HOSTILE if isinstance(value, int)]))
        if not all(0 <= probability <= 1 for row in rows for _, probability in row):
            raise Silent(f"the probabilities are not between 0 and 1: {rows[:1]}")
        return
    logits = np.asarray(classifier(images))
    if logits.shape not in ((len(np.asarray(images)), 3), (3,)) or not np.isfinite(logits).all():
        raise Silent(f"the scores have another shape, or are not finite: {logits.shape}")
    if np.ma.is_masked(images):
        raise Silent("masked values were accepted as if they were not masked")


ENTRANCES = {"arrays": Entrance(attack_arrays), "calls": Entrance(attack_calls, load_classifier)}
