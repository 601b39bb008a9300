"""Gathers the content of a report: a run's log and classifier, predictions on the test split, augmented examples."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from .. import augment
from ..data import EncodedImages
from ..errors import InputError
from ..inference import ImageClassifier
from ..layers import Conv
from ..parsing import parse_json, read_text
from ..recipe import OWN, Recipe, load_recipe
from ..runs.folder import read_metrics
from ..saved_classifier import load
from ..training import Evaluator
from ..training.evaluate import choose_batch_size
from ..training.preprocessing import resolve_geometry
from ..training.reading import choose_decoding, open_data, read_split
from ..types import Network

__all__ = ["RunRecord", "TestPredictions", "augmented_examples", "first_weights", "predict_test_split", "read_run"]

#: Keys that every epoch's row must have, and the keys that the test's row has.
_LOGGED = ("epoch", "train_loss", "train_accuracy", "seconds")
_TESTED = {"test_loss", "test_accuracy", "test_count"}


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run's folder, without the data set.

    - `folder`: the path of the run's folder.
    - `recipe`, `recipe_text`: the recipe, and the text of its file.
    - `epochs`: the logged rows of its epochs.
    - `test`: the logged row of its test; `None` if the run is not finished.
    - `environment`: the contents of `environment.json`; empty if the folder has no such file.
    - `classifier`: the trained classifier; `None` if the run is not finished, or its network is not from the zoo.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    epochs: list[dict[str, Any]]
    test: dict[str, Any] | None
    environment: dict[str, Any]
    classifier: ImageClassifier | None

    def series(self, name: str, scale: float = 1.0) -> list[float] | None:
        """Returns a logged quantity of each epoch, multiplied by `scale`; `None` if any epoch lacks the quantity."""
        values = [scale * row[name] for row in self.epochs if name in row]
        return values if len(values) == len(self.epochs) else None


def read_run(folder: Path) -> RunRecord:
    """Reads a run's folder, finished or not.

    **Raises:** `InputError` if `folder` is not a run's folder, or a file in it cannot be read.
    """
    path = folder / "recipe.yaml"
    # For a name that is too long, `os.path.isfile` returns `False`, but `Path.is_file` raises an error.
    if not os.path.isfile(path):
        raise InputError(f"`{folder}` is not a run folder: it has no recipe.yaml; give a folder made by training")
    recipe = load_recipe(path)
    # A network that is not from the zoo cannot be rebuilt here; its run gets learning curves only.
    is_loadable = (folder / "model" / "config.json").exists() and recipe.model != OWN
    return RunRecord(
        folder,
        recipe,
        read_text(path),
        *_read_rows(folder),
        _read_environment(folder / "environment.json"),
        load(folder) if is_loadable else None,
    )


def _read_rows(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns the rows of the epochs, and the row of the test if there is one."""
    found = read_metrics(folder)
    rows = [row for row in found if "epoch" in row]
    for row in rows:
        if missing := [name for name in _LOGGED if name not in row]:
            file = folder / "metrics.jsonl"
            raise InputError(f"`{file}` lacks `{missing[0]}` of epoch {row['epoch']}: restore the file")
    return rows, next((row for row in found if row.keys() >= _TESTED), None)


def _read_environment(path: Path) -> dict[str, Any]:
    found = parse_json(read_text(path), f"`{path}`") if path.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"`{path}` must hold a JSON object, as training writes it")
    return found


@dataclass(frozen=True)
class TestPredictions:
    """A classifier's predictions on the test split.

    - `images`, `labels`: the images `[n h w c]` and their classes `[n]`.
    - `log_probabilities`: log-softmax `[n classes]`.
    """

    # Keeps pytest from collecting the class as a test.
    __test__ = False

    images: Num[np.ndarray, "n h w c"] | EncodedImages
    labels: Int[np.ndarray, " n"]
    log_probabilities: Float[np.ndarray, "n k"]

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The most probable class of each image."""
        return self.log_probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose most probable class is their label, from 0 to 1."""
        return float((self.predicted == self.labels).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return -float(np.take_along_axis(self.log_probabilities, self.labels[:, None], 1).mean())

    @property
    def confusion(self) -> Int[np.ndarray, "k k"]:
        """Numbers of images `[classes classes]`, by true class (row) and predicted class (column)."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predicted, labels=self._classes)

    def per_class(self) -> list[tuple[float, float, float, int]]:
        """Returns each class's precision, recall and F1 (from 0 to 1; NaN if undefined), and its number of images."""
        from sklearn.metrics import precision_recall_fscore_support

        # The function's type stubs allow neither NaN as an argument nor arrays in the result.
        score: Any = precision_recall_fscore_support
        columns = score(self.labels, self.predicted, labels=self._classes, zero_division=np.nan)
        return [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*columns, strict=True)]

    def mistakes(self, most: int) -> Int[np.ndarray, " m"]:
        """Returns the indices of misclassified images, the most confident mistakes first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.log_probabilities[wrong].max(1), kind="stable")][:most]

    def correct(self, most: int) -> Int[np.ndarray, " m"]:
        """Returns the indices of correctly classified images: the first of each class, then the second, and so on."""
        right = np.flatnonzero(self.predicted == self.labels)
        by_class = right[np.argsort(self.labels[right], kind="stable")]
        sorted_labels = self.labels[by_class]
        place_in_class = np.arange(len(by_class)) - np.searchsorted(sorted_labels, sorted_labels)
        return by_class[np.lexsort((by_class, place_in_class))][:most]

    @property
    def _classes(self) -> range:
        return range(self.log_probabilities.shape[1])


def predict_test_split(classifier: ImageClassifier, recipe: Recipe) -> TestPredictions:
    """Predicts the classes of a recipe's test split.

    **Raises:** `InputError` if the data cannot be read, or their classes differ from the classifier's.
    """
    opened = open_data(recipe)
    if opened.info.class_names != classifier.class_names:
        raise InputError(
            f"`data` (={recipe.data!r}) has the classes {', '.join(opened.info.class_names[:5])} ..., but the run "
            f"learned {', '.join(classifier.class_names[:5])} ...: use --data to give the data of the training"
        )
    opened, decode = choose_decoding(recipe, opened, classifier.preprocess)
    test = read_split(recipe, opened, "test", classifier.preprocess, decode).without_unreadable()
    size = choose_batch_size(recipe.eval_batch_size, classifier.image_size)
    evaluator = Evaluator(classifier.mean, classifier.std, len(classifier.class_names), size, recipe.test_views)
    found = evaluator.log_probabilities(classifier.model, classifier.state, test.images)
    return TestPredictions(test.images, test.labels, found)


def first_weights(classifier: ImageClassifier) -> Float[np.ndarray, "kh kw i o"] | None:
    """Returns the kernels of the first convolution, or `None` if no layer takes the image.

    For a model without convolutions, returns the weights of a dense layer that takes all pixels, with each row
    reshaped to the shape of the image.
    """
    convolutions, dense = (_layers(classifier.model, kind) for kind in (Conv, eqx.nn.Linear))
    if convolutions:
        # The first field need not be the first layer, so prefer a layer with as many input channels as the image.
        first = min(convolutions, key=lambda layer: layer.in_channels != classifier.in_channels)
        return np.asarray(first.weight, np.float32)
    shape = (*classifier.image_size, classifier.in_channels)
    for layer in dense:
        if layer.in_features == np.prod(shape):
            return np.moveaxis(np.asarray(layer.weight, np.float32).reshape(-1, *shape), 0, -1)
    return None


def _layers(model: Network, kind: type) -> list[Any]:
    """Returns the model's layers of one type, in the order of the model's fields."""
    leaves = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def augmented_examples(
    recipe: Recipe, rows: int = 3, draws: int = 3
) -> tuple[UInt8[np.ndarray, "rows h w c"], Float[np.ndarray, "rows draws h2 w2 c"]] | None:
    """Chooses training images at random and augments them.

    **Arguments:**

    - `rows`: number of images; the recipe's seed chooses them.
    - `draws`: number of augmented copies of each image.

    **Returns:** the images, and the copies in [0, 1]; `None` if the recipe does not augment.
    """
    transform = augment.build(recipe.augment)
    if transform is None:
        return None
    images = _training_images(recipe)
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(3,)))
    chosen = np.sort(rng.choice(len(images), rows, replace=len(images) < rows))
    if isinstance(images, EncodedImages):
        # If unreadable images are skipped, the first images of the split replace them.
        originals = images.first_readable(np.concatenate([chosen, np.arange(len(images))]), rows)
    else:
        originals = np.asarray(images[chosen])
    keys = jax.random.split(jax.random.key(recipe.seed), (len(originals), draws))
    many = jax.jit(jax.vmap(jax.vmap(transform, in_axes=(None, 0))))
    return originals, np.asarray(many(jnp.asarray(originals, jnp.float32) / 255, keys))


def _training_images(recipe: Recipe) -> Num[np.ndarray, "n h w c"] | EncodedImages:
    """Reads the images of the training split as a training run does."""
    opened = open_data(recipe)
    preprocess = resolve_geometry(recipe, opened.info, None)
    opened, decode = choose_decoding(recipe, opened, preprocess)
    return read_split(recipe, opened, "train", preprocess, decode).images
