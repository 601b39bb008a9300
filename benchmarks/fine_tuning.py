"""`python -m benchmarks.fine_tuning`: transfer learning from CIFAR-10 to a few photographs of cats and dogs.

Each row of the table combines one way of training with one number of training photographs. The photographs are drawn at
random, equally many of each class. The four ways of training are: fine-tuning `airbench94` from its weights in the
package, training `airbench94` from scratch, a logistic regression on the features of the pretrained `airbench94`, and
the five nearest neighbors in these features by cosine distance. Fine-tuning and training from scratch use the recipe
`catsdogs_finetune` with smaller batches. In both, the network sees the same total number of photographs for any size of
the training set, so smaller sets are repeated more often. When training from scratch, the first layer whitens the
photographs, and the learning rate of the recipe `airbench94` is used, scaled to the batch size. Each classifier is
tested on the whole test split, with one view per photograph. Times are medians over the seeds. They include the test,
but not the decoding of the photographs, which is done once for the whole table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import eqxcnn
from eqxcnn.cli import run_command
from eqxcnn.data import Split, from_arrays
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, fit, load_recipe

from .markdown import format_number
from .timing import RESULTS, ResultTable, check_options, write_tables

_RECIPE, _SOURCE = load_recipe("catsdogs_finetune"), load_recipe("airbench94")
_BATCH_SIZE = 32

#: Trains a classifier on a training split with a seed, and returns the accuracy on a test split.
Learn = Callable[[Split, Split, int], float]


@dataclass(frozen=True)
class Options:
    """Train classifiers of cats and dogs on few photographs, in four ways."""

    data: str = _RECIPE.data
    """The data set's name or folder."""
    images: tuple[int, ...] = (50, 200, 1000)
    """Numbers of training photographs."""
    shown: int = 4000
    """Photographs that the network is shown in total, each of them several times."""
    seeds: int = 3
    """Number of seeds, starting from 0."""
    out: Path = RESULTS / "fine_tuning.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, trains the networks, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.fine_tuning", args=arguments)
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    if min((*options.images, options.shown)) < _BATCH_SIZE:
        raise InputError(f"`images` and `shown` must be {_BATCH_SIZE}, the batch size, or more")
    check_options(2, options.out)
    train, test = (
        eqxcnn.data.load(options.data, split, image_size=_RECIPE.image_size, channels=3) for split in ("train", "test")
    )
    rows = [
        _make_row(name, learn, train, test, count, options.seeds)
        for count in options.images
        for name, learn in make_ways(options.shown).items()
    ]
    head = ("photographs", "way to learn", "test accuracy (%)", "lowest", "highest", "seconds")
    title = f"`airbench94` on few photographs of cats and dogs; seeds: {options.seeds}"
    write_tables("fine_tuning", title, arguments, [ResultTable(head, rows)], options.out)


def make_ways(shown: int) -> dict[str, Learn]:
    """Returns the four ways of training by name; a training run shows the network `shown` photographs in total."""
    scale = _BATCH_SIZE / _RECIPE.batch_size
    tuned = _RECIPE.replace(
        data="own", validation=0.0, test_views="one", batch_size=_BATCH_SIZE,
        learning_rate=_RECIPE.learning_rate * scale,
    )  # fmt: skip
    scratch = tuned.replace(
        init_from=None, init_images=_SOURCE.init_images, mean=_SOURCE.mean, std=_SOURCE.std,
        learning_rate=_SOURCE.learning_rate * _BATCH_SIZE / _SOURCE.batch_size,
    )  # fmt: skip
    return {
        "fine-tuned": partial(learn_by_training, tuned, shown),
        "from scratch": partial(learn_by_training, scratch, shown),
        "logistic regression": partial(learn_from_features, make_regression),
        "nearest neighbors": partial(learn_from_features, make_neighbors),
    }


def draw(split: Split, count: int, seed: int) -> Split:
    """Returns `count` images drawn without replacement; the numbers of images per class differ by at most one."""
    rng, number = np.random.default_rng(seed), len(split.class_names)
    shares = [len(range(index, count, number)) for index in range(number)]
    rows = [
        rng.choice(np.flatnonzero(split.labels == index), share, replace=False) for index, share in enumerate(shares)
    ]
    chosen = np.sort(np.concatenate(rows))
    return Split(split.array[chosen], split.labels[chosen], split.class_names, 0)


def learn_by_training(recipe: Recipe, shown: int, train: Split, test: Split, seed: int) -> float:
    """Trains a recipe, and returns the accuracy."""
    count = len(train.labels)
    data = from_arrays(
        train.array, train.labels, test=(test.array, test.labels), class_names=train.class_names, name="photographs"
    )
    recipe = recipe.replace(seed=seed, epochs=shown / count, init_images=min(recipe.init_images, count))
    with TemporaryDirectory() as runs:
        return fit(recipe, data=data, runs=runs).test.accuracy


def learn_from_features(make: Callable[[], Any], train: Split, test: Split, seed: int) -> float:
    """Fits a classifier of scikit-learn to the features of the network, and returns the accuracy."""
    known, unknown = (
        eqxcnn.extract("airbench94", (split.array, split.labels), image_size=_RECIPE.image_size)
        for split in (train, test)
    )
    return float(make().fit(known.features, known.labels).score(unknown.features, unknown.labels))


def make_regression() -> Any:
    """Returns a logistic regression on standardized features, with scikit-learn's default regularization."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def make_neighbors() -> Any:
    """Returns a classifier that uses the five nearest neighbors by cosine distance."""
    return KNeighborsClassifier(5, metric="cosine")


def _make_row(name: str, learn: Learn, train: Split, test: Split, count: int, seeds: int) -> tuple[str, ...]:
    found, seconds = [], []
    for seed in range(seeds):
        some = draw(train, count, seed)
        started = perf_counter()
        found.append(100 * learn(some, test, seed))
        seconds.append(perf_counter() - started)
    accuracies = (f"{each:.2f}" for each in (np.mean(found), min(found), max(found)))
    return f"{count:,}", name, *accuracies, format_number(float(np.median(seconds)))


if __name__ == "__main__":
    run_command(main)
