"""`python -m eqxcnn.evaluate`: a trained classifier's accuracy, loss and per-class table on labeled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Int

from .cli import run_command
from .data import load as load_data
from .errors import InputError
from .inference import load
from .training import Evaluator, Recipe, Scores, load_recipe


@dataclass(frozen=True)
class Options:
    """Evaluate a trained classifier on labeled images."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or the model folder inside it."""
    data: str | None = None
    """A data set's name, a Hub id or a local folder; by default what the run was trained on. Images are looked at in
    the views of the run's recipe (`test_views`)."""
    split: Literal["train", "test"] = "test"
    """Which split of it."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What to do with an image that cannot be decoded or has no label."""


def main(arguments: Sequence[str]) -> None:
    """Parses, evaluates, prints."""
    options = tyro.cli(Options, prog="python -m eqxcnn.evaluate", args=arguments)
    classifier, recipe = load(options.run), _recipe_of(options.run)
    if recipe is None and options.data is None:
        raise InputError(f"`{options.run}` does not tell what it was trained on: give the images with --data")
    labeled = load_data(
        options.data or (recipe or Recipe()).data,
        options.split,
        image_size=classifier.image_size,
        channels=classifier.in_channels,
        on_bad_image=options.on_bad_image,
    )
    labels = class_numbers(labeled.class_names, classifier.class_names)[labeled.labels]
    views = "one" if recipe is None else recipe.test_views
    evaluator = Evaluator(classifier.mean, classifier.std, len(classifier.class_names), views=views)
    scores = evaluator(classifier.model, classifier.state, labeled.images, labels)
    print(report(scores, classifier.class_names))


def class_numbers(names: Sequence[str], known: Sequence[str]) -> Int[np.ndarray, " k"]:
    """The classifier's number of each of the data's classes, by name.

    **Arguments:**

    - `names`, `known`: the data's classes, and the classifier's.

    **Raises:** `InputError` naming the classes that the classifier has never seen.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"the data have classes the classifier was not trained on ({', '.join(unknown[:5])}): "
            f"it knows {', '.join(known[:10])}"
        )
    return np.asarray([known.index(name) for name in names], np.int32)


def report(scores: Scores, class_names: Sequence[str]) -> str:
    """Accuracy, loss, and a line a class with precision, recall, F1 (in %) and its number of images."""
    hits, actual, predicted = (
        each.tolist() for each in (np.diag(scores.confusion), scores.confusion.sum(1), scores.confusion.sum(0))
    )
    width = max(5, *map(len, class_names))
    lines = [
        f"accuracy {scores.accuracy:.2%}  loss {scores.loss:.4f}  images {scores.count:,}",
        "",
        f"{'class':<{width}}  precision  recall     F1  images",
    ]
    for name, hit, true, guessed in zip(class_names, hits, actual, predicted, strict=True):
        shares = (_share(hit, guessed), _share(hit, true), _share(2 * hit, true + guessed))
        lines.append(f"{name:<{width}}  {shares[0]:>9}  {shares[1]:>6}  {shares[2]:>5}  {true:>6,}")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    """Per cent, or a dash where there was nothing to share."""
    return f"{100 * part / whole:.1f}" if whole else "-"


def _recipe_of(folder: Path) -> Recipe | None:
    """The recipe of the run at or above `folder`, if there is one."""
    paths = [run / "recipe.yaml" for run in (folder, folder.resolve().parent)]
    return next((load_recipe(path) for path in paths if path.exists()), None)


if __name__ == "__main__":
    run_command(main)
