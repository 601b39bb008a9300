"""Trained weights in this package: one file of weights per model, with a record of the run that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...images import Preprocess
from ...parsing import parse_json, read_text
from ..files import digest_file, load_safetensors

__all__ = ["BUNDLED", "Bundled", "ClassScores", "load_bundled_tensors", "read_record"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ClassScores:
    """The test scores of one class.

    - `name`: the class.
    - `precision`, `recall`, `f1`: from 0 to 1; 0 for a class that is never predicted.
    - `images`: number of test images of the class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class Bundled:
    """Trained weights in this package, their scores on the test split, and the run that made them.

    - `model`: the model's name.
    - `parameters`: the number of parameters at the image size of `preprocess`.
    - `sha256`: the digest of the file of weights.
    - `dtype`: the type in which the file stores kernels and matrices, `float32` or `float16`. The scores were measured
      with the rounded weights. The loaded weights are float32.
    - `preprocess`: size, resizing and normalization of the images that the weights expect.
    - `data`, `recipe`, `seed`: the data set, the shipped recipe and the seed of the run.
    - `test_views`: the recipe's views of each test image. `accuracy`, `loss` and `classes` are computed from logits
      averaged over these views.
    - `accuracy`, `loss`: accuracy from 0 to 1, and mean cross-entropy in nats, on the test split.
    - `one_view_accuracy`: accuracy from one view of each image, which is how a loaded classifier predicts.
    - `classes`: the scores of each class, in the order of the logits.
    - `training`: the command, the times and the environment of the run.
    """

    model: str
    parameters: int
    sha256: str
    dtype: str
    preprocess: Preprocess
    data: str
    recipe: str
    seed: int
    test_views: str
    accuracy: float
    one_view_accuracy: float
    loss: float
    classes: tuple[ClassScores, ...]
    training: Mapping[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, in the order of the logits."""
        return tuple(each.name for each in self.classes)

    @property
    def test_images(self) -> int:
        """Number of images in the test split."""
        return sum(each.images for each in self.classes)

    @property
    def epoch_seconds(self) -> float | None:
        """Time of an epoch of the run, without validation, in seconds; `None` if it was not recorded.

        The median over the epochs, since a run may have been paused; the mean for records without the median.
        """
        if "epoch_seconds_median" in self.training:
            return self.training["epoch_seconds_median"]
        total = self.training.get("train_seconds")
        return None if total is None else total / self.training["epochs"]

    @property
    def path(self) -> Path:
        """Path of the file of weights."""
        return _FOLDER / f"{self.model}.safetensors"


def read_record(path: Path) -> Bundled:
    """Reads the record at `path`, which describes the weights in the file beside it.

    **Raises:** `InputError` if the file cannot be read or is not JSON.
    """
    fields = parse_json(read_text(path), f"`{path}`")
    settings: dict[str, Any] = {
        key: tuple(each) if isinstance(each, list) else each for key, each in fields.pop("preprocess").items()
    }
    classes = tuple(ClassScores(**row) for row in fields.pop("classes"))
    return Bundled(**fields, preprocess=Preprocess(**settings), classes=classes)


def load_bundled_tensors(row: Bundled) -> dict[str, np.ndarray]:
    """Returns a model's weights as float32 arrays, keyed by tensor name.

    **Raises:** `InputError` if the file is missing or has another digest.
    """
    if digest_file(row.path) != row.sha256:
        raise InputError(f"`{row.path}` is not the file that was published with eqxcnn: install eqxcnn again")
    return {name: tensor.astype(np.float32) for name, tensor in load_safetensors(row.path).items()}


#: The records of all trained weights in this package, by model name.
BUNDLED: Mapping[str, Bundled] = {path.stem: read_record(path) for path in sorted(_FOLDER.glob("*.json"))}
