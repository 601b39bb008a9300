"""Writes the report of a run (plots and a page), or draws a recipe's augmented images."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.style import context

from ..errors import InputError
from ..inference import ImageClassifier
from ..plots import figures, learning_curves
from ..plots.style import STYLE
from ..recipe import OWN, Recipe
from .gather import RunRecord, TestPredictions, augmented_examples, first_weights, predict_test_split, read_run
from .heat import compute_heat
from .page import Picture, render

__all__ = ["show_augment", "write_report"]

#: The plots that are written as PNG and SVG (the page shows the SVG), and below them the plots that are written only as
#: PNG.
_LINE_ART = ("loss", "accuracy", "epoch_time", "training", "confusion")
_PIXELS = ("kernels", "augment", "wrong", "heat")
_FORMATS = ("png", "jpg", "pdf", "svg")
_MISTAKES = 16
#: Maximum number of heat maps of correctly classified images, and of misclassified images.
_HEAT_MAPS = 4


def write_report(folder: Path | str, *, data: str | None = None) -> Path:
    """Writes the plots of a run, and a page `report.html` that shows them, into the run's `plots/`.

    For an unfinished run, only the learning curves are drawn.

    **Arguments:**

    - `folder`: the run's folder.
    - `data`: used instead of the recipe's `data`, for data that have been moved.

    **Returns:** the path of the page.

    **Raises:** `InputError` if `folder` is not a run's folder, if the run's data cannot be read, or if `plots/` cannot
        be written.
    """
    run = read_run(Path(folder))
    recipe = run.recipe if data is None else replace(run.recipe, data=data)
    # Data that were passed to the run from Python are not available here.
    classifier = None if recipe.data == OWN else run.classifier
    predictions = None if classifier is None else predict_test_split(classifier, recipe)
    drawn = dict(_draw_curves(run))
    if classifier is not None and predictions is not None:
        drawn |= dict(_draw_classifier(classifier, recipe, predictions))
    plots = run.folder / "plots"
    shown = {name: each if isinstance(each, str) else _write_figure(each, plots, name) for name, each in drawn.items()}
    _write(plots / "report.html", render(run, predictions, shown).encode())
    _remove_others(plots, shown)
    return plots / "report.html"


def show_augment(recipe: Recipe, path: Path | str) -> Path:
    """Draws nine augmented training images beside their originals, without training.

    **Arguments:**

    - `recipe`: its `augment`, `data` and `seed` are used.
    - `path`: the file to write; its suffix determines the format.

    **Raises:** `InputError` if the recipe does not augment, if its data cannot be read, or if `path` cannot be written.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in _FORMATS:
        raise InputError(f"`out` (={str(path)!r}) must have one of the suffixes .{', .'.join(_FORMATS)}")
    examples = augmented_examples(recipe)
    if examples is None:
        raise InputError("there is no augmentation to show: name transforms with --augment, or give another recipe")
    _write(path, _render(figures.augmentation(*examples), kind))
    return path


def _draw_curves(run: RunRecord) -> Iterator[tuple[str, Figure | str]]:
    """Yields the name and figure of each plot of a run's log. A sentence replaces the figure if there is nothing to
    draw."""
    if not run.epochs:
        yield "loss", "No epoch is logged yet."
        return
    epochs = [row["epoch"] for row in run.epochs]
    curves, seconds = [], run.series("seconds") or []
    for name, label, scale, most in (("loss", "Loss (nats)", 1.0, np.inf), ("accuracy", "Accuracy (%)", 100.0, 100.0)):
        train, validation = (run.series(f"{part}_{name}", scale) for part in ("train", "validation"))
        curves.append((train or [], validation, label, most))
        yield name, learning_curves.curves(epochs, *curves[-1])
    yield "epoch_time", learning_curves.epoch_times(epochs, seconds)
    # All curves in one figure, for papers and web pages; the report shows the three separate figures instead.
    yield "training", learning_curves.training(epochs, curves, seconds)


def _draw_classifier(
    classifier: ImageClassifier, recipe: Recipe, predictions: TestPredictions
) -> Iterator[tuple[str, Figure | str]]:
    """Yields the name and figure of each plot of a trained classifier. A sentence that gives the reason replaces a
    missing figure."""
    names = classifier.class_names
    yield "confusion", figures.confusion_matrix(predictions.confusion, names)

    weights = first_weights(classifier)
    yield "kernels", "No layer takes the image itself as its input." if weights is None else figures.kernels(weights)

    examples = augmented_examples(recipe)
    yield "augment", "This recipe does not augment." if examples is None else figures.augmentation(*examples)

    correct, wrong = predictions.correct(_HEAT_MAPS), predictions.mistakes(_MISTAKES)
    rows = np.concatenate([correct, wrong])
    # All images are read in one call, because each read of streamed data starts again at the first image.
    images, guesses = np.asarray(predictions.images[rows]), predictions.predicted[rows]
    captions = (
        [names[label] for label in predictions.labels[rows]],
        [names[guess] for guess in guesses],
        np.exp(predictions.log_probabilities[rows, guesses]).tolist(),
    )
    mistakes, shown = slice(len(correct), None), slice(len(correct) + _HEAT_MAPS)
    if len(wrong):
        yield "wrong", figures.mistakes(images[mistakes], *(each[mistakes] for each in captions))
    else:
        yield "wrong", f"None: all {len(predictions.labels):,} test images are classified correctly."

    heat = compute_heat(classifier, images[shown], guesses[shown])
    if heat is None:
        yield "heat", "No heat maps: Grad-CAM needs a network that computes its scores from feature maps."
    else:
        yield "heat", figures.heat_maps(images[shown], heat, *(each[shown] for each in captions))


def _write_figure(figure: Figure, plots: Path, name: str) -> Picture:
    """Writes a figure's files and returns the picture that the page shows."""
    png = _render(figure, "png")
    _write(plots / f"{name}.png", png)
    width = round(96 * figure.get_size_inches()[0])
    if name not in _LINE_ART:
        return Picture(png, "image/png", width)
    svg = _render(figure, "svg")
    _write(plots / f"{name}.svg", svg)
    return Picture(svg, "image/svg+xml", width)


@context(STYLE)
def _render(figure: Figure, kind: str) -> bytes:
    """Returns the bytes of a figure's file."""
    buffer = io.BytesIO()
    # Without a date, equal figures give equal files.
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from error


def _remove_others(plots: Path, shown: Mapping[str, Picture | str]) -> None:
    """Removes earlier plots that the new report does not contain."""
    for name in (*_LINE_ART, *_PIXELS):
        for kind in ("png", "svg") if not isinstance(shown.get(name), Picture) else ():
            (plots / f"{name}.{kind}").unlink(missing_ok=True)
