"""From a run's folder to its pictures and its page; and augmented images without a run."""

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
from ..training import Recipe
from .gather import RunRecord, TestPredictions, augmented_examples, first_weights, judge_test_split, read_run
from .page import Picture, render

#: Line art is also written as SVG, which the page shows; pixels stay pixels.
_LINE_ART = ("loss", "accuracy", "epoch_time", "training", "confusion")
_PIXELS = ("kernels", "augment", "wrong")
_FORMATS = ("png", "jpg", "pdf", "svg")
_MISTAKES = 16


def write_report(folder: Path | str, *, data: str | None = None) -> Path:
    """Draws a run into its `plots/`: pictures, and `report.html`, which shows them all.

    A run that is not finished gets its curves only.

    **Arguments:**

    - `folder`: the run's.
    - `data`: where the images are now, when not where the recipe says.

    **Returns:** the page's path.

    **Raises:** `InputError` when the folder is no run's, its data cannot be read, or `plots/` cannot be written.
    """
    run = read_run(Path(folder))
    recipe = run.recipe if data is None else replace(run.recipe, data=data)
    verdict = None if run.classifier is None else judge_test_split(run.classifier, recipe)
    drawn = dict(_curves(run))
    if run.classifier is not None and verdict is not None:
        drawn |= dict(_looks(run.classifier, recipe, verdict))
    plots = run.folder / "plots"
    shown = {name: each if isinstance(each, str) else _picture(each, plots, name) for name, each in drawn.items()}
    _write(plots / "report.html", render(run, verdict, shown).encode())
    _remove_others(plots, shown)
    return plots / "report.html"


def show_augment(recipe: Recipe, path: Path | str) -> Path:
    """Draws nine augmented training images beside their originals, without training.

    **Arguments:**

    - `recipe`: whose `augment` and `data` to take; its `seed` decides what is drawn.
    - `path`: the picture's; its ending says the format.

    **Raises:** `InputError` when the recipe does not augment, its data cannot be read, or `path` cannot be written.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in _FORMATS:
        raise InputError(f"`out` (={str(path)!r}) must end in a format's name: .{', .'.join(_FORMATS)}")
    examples = augmented_examples(recipe)
    if examples is None:
        raise InputError("there is no augmentation to show: name transforms with --augment, or a recipe that has some")
    _write(path, _drawn(figures.augmentation(*examples), kind))
    return path


def _curves(run: RunRecord) -> Iterator[tuple[str, Figure | str]]:
    """What the log alone gives, by name: figures, or why there is none."""
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
    # For a paper or a page; the report shows the three above.
    yield "training", learning_curves.training(epochs, curves, seconds)


def _looks(classifier: ImageClassifier, recipe: Recipe, verdict: TestPredictions) -> Iterator[tuple[str, Figure | str]]:
    """What a trained classifier and its data give, by name: figures, or why there is none."""
    names = classifier.class_names
    yield "confusion", figures.confusion_matrix(verdict.confusion, names)

    weights = first_weights(classifier)
    yield "kernels", "No layer sees the image itself." if weights is None else figures.kernels(weights)

    examples = augmented_examples(recipe)
    yield "augment", "This recipe does not augment." if examples is None else figures.augmentation(*examples)

    wrong = verdict.mistakes(_MISTAKES)
    if not len(wrong):
        yield "wrong", f"None: all {len(verdict.labels):,} test images are classified rightly."
        return
    guesses = verdict.predicted[wrong]
    yield (
        "wrong",
        figures.mistakes(
            np.asarray(verdict.images[wrong]),
            [names[label] for label in verdict.labels[wrong]],
            [names[guess] for guess in guesses],
            np.exp(verdict.log_probabilities[wrong, guesses]).tolist(),
        ),
    )


def _picture(figure: Figure, plots: Path, name: str) -> Picture:
    """Writes a figure's files, and gives what the page shows of it."""
    png = _drawn(figure, "png")
    _write(plots / f"{name}.png", png)
    width = round(96 * figure.get_size_inches()[0])
    if name not in _LINE_ART:
        return Picture(png, "image/png", width)
    svg = _drawn(figure, "svg")
    _write(plots / f"{name}.svg", svg)
    return Picture(svg, "image/svg+xml", width)


@context(STYLE)
def _drawn(figure: Figure, kind: str) -> bytes:
    """A figure as a file's bytes."""
    buffer = io.BytesIO()
    # Without a date, equal pictures are equal files.
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from error


def _remove_others(plots: Path, shown: Mapping[str, Picture | str]) -> None:
    """Removes pictures of an earlier report that this one does not have: they would tell of another state."""
    for name in (*_LINE_ART, *_PIXELS):
        for kind in ("png", "svg") if not isinstance(shown.get(name), Picture) else ():
            (plots / f"{name}.{kind}").unlink(missing_ok=True)
