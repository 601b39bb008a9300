"""`python -m eqxcnn.evaluate`: prints a trained classifier's accuracy, loss and per-class table on labeled images."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Int

from .cli import run_command, show_progress
from .data import DataSet, Split, open_source
from .errors import InputError, printable
from .hub_models import resolve_run
from .images import Preprocess
from .metrics import build as build_metrics
from .plugins import IMPORT_HELP, take_imports
from .ranges import Items, Range, check_settings
from .recipe import OWN, Recipe, load_recipe
from .runtime.devices import choose_devices
from .runtime.memory import keep_freed_memory
from .saved_classifier import load
from .training import Evaluator, Scores
from .training.evaluate import choose_batch_size
from .weights.bundled import Bundled
from .weights.published import find_published

__all__ = ["Options", "format_report", "main", "match_classes"]

#: Class names with more characters than this are shortened in the table.
_MAX_NAME = 60


@dataclass(frozen=True)
class Options:
    """Evaluates a trained classifier on labeled images."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, the model folder inside it, the name of a model with trained weights, such as lenet, or a model
    on the Hugging Face Hub, such as hub:user/name."""
    data: str | None = None
    """A data set's name, a Hub id or a local folder; by default the data of the run's recipe, or of the recipe that
    trained the named model. The `test_views` of that recipe are used with every data set: the scores of an image are
    averaged over its views."""
    image_column: str | None = None
    """Column of the images; by default the run's column, or with `--data` the column found by type and name."""
    label_column: str | None = None
    """Column of the labels; the default is chosen as for `image_column`."""
    test_split: str | None = None
    """Name of the test split; by default the run's test split, or with `--data` the split `test`, else `validation`."""
    split: Literal["train", "test"] = "test"
    """The split to evaluate on."""
    batch_size: Annotated[int, Range(1, 1_000_000)] | None = None
    """Images per batch; each view counts as an image. At most two batches are in memory at once, and 128 MiB of
    images that are decoded ahead. By default the recipe's `eval_batch_size`, or fewer for large images."""
    metrics: Annotated[tuple[str, ...], Items(20)] = ()
    """Further metrics, such as `top_k(5)` or `expected_calibration_error`; by default the recipe's metrics."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """Stop at an image that cannot be decoded or has no label, or skip it."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, evaluates, and prints the report."""
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.evaluate", description=help_, args=arguments)
    check_settings(options)
    keep_freed_memory()
    run = resolve_run(options.run)
    classifier, recipe = load(run), _find_recipe(run)
    if options.data is None and (recipe is None or recipe.data == OWN):
        raise InputError(f"`{options.run}` does not say which data it was trained on: name a data set with --data")
    recipe = recipe or Recipe()
    metrics = build_metrics(options.metrics or recipe.metrics)
    # The column and split names in the recipe apply only to the recipe's own data.
    known = recipe if options.data is None else Recipe()
    name = options.data or recipe.data
    source = open_source(
        name,
        image_column=options.image_column or known.image_column,
        label_column=options.label_column or known.label_column,
        test_split=options.test_split or known.test_split,
        quick=None,
        streaming=known.data_streaming,
    )
    classes = match_classes(source.info.class_names, classifier.class_names)
    labeled = _read(source, options, classifier.preprocess)
    count = len(labeled.labels)
    if count == 0:
        raise InputError(
            f"none of the {labeled.skipped:,} images in the {options.split} split of `{name}` has a label: choose "
            "another split or label column"
        )
    devices = choose_devices()
    classifier = devices.replicate(classifier)
    evaluator = Evaluator(
        classifier.mean,
        classifier.std,
        len(classifier.class_names),
        options.batch_size or _choose_batch_size(recipe, classifier.image_size),
        recipe.test_views,
        metrics,
        devices,
    )
    with show_progress(f"evaluating on {source.info.name}", count) as advance:
        scores = evaluator(classifier.model, classifier.state, labeled.images, classes[labeled.labels], advance=advance)
    if skipped := count + labeled.skipped - scores.count:
        print(f"skipped {skipped:,} of {count + labeled.skipped:,} images", file=sys.stderr)
    print(format_report(scores, classifier.class_names))


def match_classes(names: Sequence[str], known: Sequence[str]) -> Int[np.ndarray, " k"]:
    """Returns, for each class of the data, the index of the classifier's class with the same name.

    **Arguments:**

    - `names`, `known`: the class names of the data and of the classifier.

    **Raises:** `InputError` naming the classes that the classifier does not have.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"the data have classes that the classifier was not trained on ({', '.join(unknown[:5])}): "
            f"its classes are {', '.join(known[:10])}"
        )
    numbers = {name: number for number, name in enumerate(known)}
    return np.asarray([numbers[name] for name in names], np.int32)


def format_report(scores: Scores, class_names: Sequence[str]) -> str:
    """Returns the report: accuracy and loss, one line per further metric, and one line per class with precision, recall
    and F1 (in %) and the number of images."""
    hits, actual, predicted = (
        counts.tolist() for counts in (np.diag(scores.confusion), scores.confusion.sum(1), scores.confusion.sum(0))
    )
    shown = [printable(name, _MAX_NAME) for name in class_names]
    width = max(5, *map(len, shown))
    lines = [
        f"accuracy {scores.accuracy:.2%}  loss {scores.loss:.4f}  images {scores.count:,}",
        *(f"{name} {_format_metric(value)}" for name, value in scores.metrics.items()),
        "",
        f"{'class':<{width}}  precision  recall     F1  images",
    ]
    for name, hit, true, guessed in zip(shown, hits, actual, predicted, strict=True):
        precision, recall, f1 = _percent(hit, guessed), _percent(hit, true), _percent(2 * hit, true + guessed)
        lines.append(f"{name:<{width}}  {precision:>9}  {recall:>6}  {f1:>5}  {true:>6,}")
    return "\n".join(lines)


def _format_metric(value: float | int | list[float | None]) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join("-" if each is None else f"{each:.4f}" for each in values)


def _percent(part: int, whole: int) -> str:
    """Returns `part` as a percentage of `whole`, or a dash if `whole` is 0."""
    return f"{100 * part / whole:.1f}" if whole else "-"


def _read(source: DataSet, options: Options, preprocess: Preprocess) -> Split:
    """Returns the decoded images from the cache; without a cache, images are decoded while they are evaluated.

    No new cache is written: an evaluation reads each image once, so a cache would take disk space and save no time.
    """
    found = source.find_decoded(options.split, preprocess=preprocess, on_bad_image=options.on_bad_image)
    return found or source.stream(options.split, preprocess=preprocess, on_bad_image=options.on_bad_image)


def _choose_batch_size(recipe: Recipe, image_size: tuple[int, int]) -> int:
    # The default is an upper limit, because older versions recorded 500 in the recipe for every image size.
    return min(choose_batch_size(wanted, image_size) for wanted in (recipe.eval_batch_size, None))


def _find_recipe(run: Path) -> Recipe | None:
    """Returns the recipe in `run` or its parent folder, or the recipe that trained the named model, or `None`."""
    published = find_published(run)
    if isinstance(published, Bundled):
        return load_recipe(published.recipe)
    if published is not None:
        return None
    paths = [folder / "recipe.yaml" for folder in (run, run.resolve().parent)]
    return next((load_recipe(path) for path in paths if os.path.exists(path)), None)


if __name__ == "__main__":
    run_command(main)
