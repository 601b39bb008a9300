"""What a report needs: a run's log, its classifier, what that makes of the test split, augmented examples."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from .. import augment
from ..data import Split, eval_batches, open_source
from ..errors import InputError
from ..forward_pass import normalize
from ..inference import ImageClassifier, load
from ..layers import Conv
from ..runs.folder import read_metrics
from ..runtime.compile import async_jit
from ..training import Recipe, load_recipe
from ..training.job import image_size_for
from ..types import BatchLogits, Classifier, Pixels
from ..views import NUM_VIEWS, Views, view_logits

_BATCH = 500
#: What each epoch logs at least.
_LOGGED = ("epoch", "train_loss", "train_accuracy", "seconds")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder tells without its data.

    - `folder`, `recipe`: where it is, and what it was asked; `recipe_text` is the recipe's file as it stands.
    - `epochs`: the logged rows of its epochs.
    - `environment`: what it ran on; empty when that was not kept.
    - `classifier`: what came of it; `None` while it is not finished.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    epochs: list[dict[str, Any]]
    environment: dict[str, Any]
    classifier: ImageClassifier | None

    def series(self, name: str, scale: float = 1.0) -> list[float] | None:
        """A logged quantity times `scale`, epoch by epoch; `None` when it was not logged."""
        values = [scale * row[name] for row in self.epochs if name in row]
        return values if len(values) == len(self.epochs) else None


def read_run(folder: Path) -> RunRecord:
    """Reads a run's folder, finished or not.

    **Raises:** `InputError` when it is no run's, or a file in it cannot be read.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise InputError(f"`{folder}` is no run folder: it has no recipe.yaml; give one that training has made")
    is_finished = (folder / "model" / "config.json").exists()
    return RunRecord(
        folder,
        load_recipe(path),
        path.read_text(encoding="utf-8"),
        _read_epochs(folder),
        _read_environment(folder / "environment.json"),
        load(folder) if is_finished else None,
    )


def _read_epochs(folder: Path) -> list[dict[str, Any]]:
    try:
        rows = [row for row in read_metrics(folder) if "epoch" in row]
        if bad := [row for row in rows if not all(isinstance(row.get(name), int | float) for name in _LOGGED)]:
            raise ValueError(f"the row {bad[0]}")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"`{folder / 'metrics.jsonl'}` is not as training writes it: {error!r}") from error
    return rows


def _read_environment(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"`{path}` cannot be read as JSON: {error}") from error


@dataclass(frozen=True)
class TestPredictions:
    """What a classifier makes of labeled images.

    - `images`, `labels`: the images `[n h w c]` and their classes.
    - `log_probabilities`: `[n classes]`, the logarithm of softmax.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    log_probabilities: Float[np.ndarray, "n k"]

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The likeliest class of each image."""
        return self.log_probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Share of the images whose likeliest class is theirs, from 0 to 1."""
        return float((self.predicted == self.labels).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return -float(np.take_along_axis(self.log_probabilities, self.labels[:, None], 1).mean())

    @property
    def confusion(self) -> Int[np.ndarray, "k k"]:
        """Counts, true class by predicted class."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predicted, labels=self._classes)

    def per_class(self) -> list[tuple[float, float, float, int]]:
        """Precision, recall and F1 from 0 to 1, NaN where there is nothing to share, and number of images by class."""
        from sklearn.metrics import precision_recall_fscore_support

        # Its types know neither NaN nor that every part of the answer is an array here.
        score: Any = precision_recall_fscore_support
        columns = score(self.labels, self.predicted, labels=self._classes, zero_division=np.nan)
        return [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*columns, strict=True)]

    def mistakes(self, most: int) -> Int[np.ndarray, " m"]:
        """The wrongly classified images, those with the most probable wrong class first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.log_probabilities[wrong].max(1), kind="stable")][:most]

    @property
    def _classes(self) -> range:
        return range(self.log_probabilities.shape[1])


def judge_test_split(classifier: ImageClassifier, recipe: Recipe) -> TestPredictions:
    """Looks at a recipe's test split once, in batches of one shape.

    **Raises:** `InputError` when the data cannot be read, or have other classes than the classifier.
    """
    opened = open_source(recipe.data)
    if opened.info.class_names != classifier.class_names:
        raise InputError(
            f"`data` (={recipe.data!r}) has the classes {', '.join(opened.info.class_names[:5])} ..., and the run "
            f"learnt {', '.join(classifier.class_names[:5])} ...: give the data it was trained on with --data"
        )
    test = opened.decode(
        "test",
        image_size=classifier.image_size,
        channels=classifier.in_channels,
        on_bad_image=recipe.on_bad_image,
    )
    return TestPredictions(test.images, test.labels, _log_probabilities(classifier, test, recipe.test_views))


def _log_probabilities(classifier: ImageClassifier, split: Split, views: Views) -> Float[np.ndarray, "n k"]:
    def scores(classifier: ImageClassifier, images: Pixels) -> BatchLogits:
        inputs = normalize(images, classifier.mean, classifier.std)
        model = eqx.nn.inference_mode(classifier.model)
        return jax.nn.log_softmax(view_logits(model, classifier.state, inputs, views))

    look = async_jit(scores)
    batches, _ = eval_batches(len(split.labels), min(_BATCH // NUM_VIEWS[views], len(split.labels)))
    rows = [np.asarray(look(classifier, split.images[batch])) for batch in batches]
    # The last batch is filled up, at its end.
    return np.concatenate(rows)[: len(split.labels)]


def first_weights(classifier: ImageClassifier) -> Float[np.ndarray, "kh kw i o"] | None:
    """The kernels of the first convolution, or a dense layer's rows over the pixels; `None` without either."""
    convolutions, dense = (_layers(classifier.model, kind) for kind in (Conv, eqx.nn.Linear))
    if convolutions:
        # Fields need not stand in the order of the computation: the first one looks at the image's channels.
        first = min(convolutions, key=lambda layer: layer.in_channels != classifier.in_channels)
        return np.asarray(first.weight, np.float32)
    shape = (*classifier.image_size, classifier.in_channels)
    for layer in dense:
        if layer.in_features == np.prod(shape):
            return np.moveaxis(np.asarray(layer.weight, np.float32).reshape(-1, *shape), 0, -1)
    return None


def _layers(model: Classifier, kind: type) -> list[Any]:
    """The model's layers of a kind, in the order of its fields."""
    leaves = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def augmented_examples(
    recipe: Recipe, rows: int = 3, draws: int = 3
) -> tuple[UInt8[np.ndarray, "rows h w c"], Float[np.ndarray, "rows draws h w c"]] | None:
    """Some of a recipe's training images, and what its augmentation makes of each in several draws, in [0, 1].

    The recipe's seed decides which images and which draws; `None` when it does not augment.
    """
    change = augment.build(recipe.augment)
    if change is None:
        return None
    images = _training_images(recipe)
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(3,)))
    chosen = np.sort(rng.choice(len(images), rows, replace=len(images) < rows))
    originals = np.asarray(images[chosen])
    keys = jax.random.split(jax.random.key(recipe.seed), (rows, draws))
    many = jax.jit(jax.vmap(jax.vmap(change, in_axes=(None, 0))))
    return originals, np.asarray(many(jnp.asarray(originals, jnp.float32) / 255, keys))


def _training_images(recipe: Recipe) -> UInt8[np.ndarray, "n h w c"]:
    """The training split at the size that training gives it."""
    opened = open_source(recipe.data)
    size = image_size_for(recipe, opened.info)
    return opened.decode("train", image_size=size, on_bad_image=recipe.on_bad_image).images
