"""The report's HTML page, a single file that contains its pictures."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, isnan

from ..cost import count_parameters
from ..errors import printable
from ..plots.figures import MAX_KERNELS, MAX_NAMED_CLASSES
from .gather import RunRecord, TestPredictions

__all__ = ["Picture", "render"]

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1060px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; overflow-wrap: anywhere; } h2 { font-size: 1.2em; margin: 2em 0 .7em; }
.row { display: flex; flex-wrap: wrap; gap: 1em 2em; align-items: flex-start; }
figure { margin: 0; } .three figure { flex: 1 1 300px; }
img { max-width: 100%; height: auto; } figcaption, .note { color: #555; font-size: .9em; max-width: 44em; }
figcaption { margin-top: .4em; }
.warning { border-left: 4px solid #D55E00; padding: .4em 1em; background: #fdf3ec; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15em 1.2em .15em 0; text-align: right; border-bottom: 1px solid #e5e5e5; }
th:first-child, td:first-child, .facts td { text-align: left; overflow-wrap: anywhere; }
pre { background: #f6f6f6; padding: .8em 1em; overflow-x: auto; font-size: .85em; }
"""

#: Maximum number of characters in a table cell and in a line of the recipe.
_MAX_CELL, _MAX_LINE = 1000, 4096


#: The pictures' alternative texts, for readers who cannot see them.
_ALTERNATIVES = {
    "loss": "Curves of the loss by epoch",
    "accuracy": "Curves of the accuracy by epoch",
    "epoch_time": "Bars of the training time of each epoch",
    "confusion": "Confusion matrix of the test images",
    "wrong": "Misclassified test images with their true and predicted classes",
    "heat": "Test images with their true and predicted classes, and the Grad-CAM heat map of each predicted class",
    "kernels": "Kernels of the first layer as small images",
    "augment": "Training images, and augmented versions of each",
}


@dataclass(frozen=True)
class Picture:
    """A picture's file content, media type, and width in CSS pixels (96 per inch)."""

    data: bytes
    media_type: str
    width: int


def render(run: RunRecord, predictions: TestPredictions | None, pictures: Mapping[str, Picture | str]) -> str:
    """Returns the page of a run.

    **Arguments:**

    - `run`, `predictions`: see `gather`; `predictions` is `None` if the run is not finished, or if its network or data
      came from Python.
    - `pictures`: maps each name to a picture, or to a sentence that replaces a missing picture.
    """
    title = escape(printable(run.folder.resolve().name))
    curves = _render_pictures(("loss", "accuracy", "epoch_time"), run, pictures)
    body = [
        f"<h1>{title}</h1>",
        _render_facts(run, predictions),
        "<h2>Training</h2>",
        f'<div class="row three">{curves}</div>',
    ]
    if predictions is not None:
        classes = _render_pictures(["confusion"], run, pictures) + _render_classes(run, predictions)
        body += ["<h2>Classes</h2>", f'<div class="row">{classes}</div>']
        body += ["<h2>Most confidently wrong</h2>", _render_pictures(["wrong"], run, pictures)]
        body += ["<h2>Where the network looks</h2>", _render_pictures(["heat"], run, pictures)]
        body += ["<h2>First layer</h2>", _render_pictures(["kernels"], run, pictures)]
        body += ["<h2>Augmentation</h2>", _render_pictures(["augment"], run, pictures)]
    body += ["<h2>Recipe</h2>", f"<pre>{escape(_printable_lines(run.recipe_text))}</pre>"]
    if run.environment:
        body += ["<h2>Environment</h2>", _render_table((), run.environment.items(), "facts")]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _render_facts(run: RunRecord, predictions: TestPredictions | None) -> str:
    """Returns the table at the top of the page. Without `predictions`, a warning above the table says why the page
    shows only logged metrics."""
    recipe, facts = run.recipe, {}
    if run.classifier is not None and predictions is not None:
        weights = count_parameters(run.classifier.model)
        size = " x ".join(map(str, (*run.classifier.image_size, run.classifier.in_channels)))
        facts["Test accuracy"] = f"{predictions.accuracy:.2%} of {len(predictions.labels):,} images"
        facts["Test loss"] = f"{predictions.loss:.4f} nats"
        facts["Model"] = f"{recipe.model}, {weights:,} parameters, input {size}"
        facts["Data"] = f"{recipe.data}, {len(run.classifier.class_names)} classes"
    else:
        if run.test is not None:
            facts["Test accuracy"] = f"{run.test['test_accuracy']:.2%} of {run.test['test_count']:,} images"
            facts["Test loss"] = f"{run.test['test_loss']:.4f} nats"
        facts |= {"Model": recipe.model, "Data": recipe.data}
    seconds = sum(run.series("seconds") or [], 0.0)
    facts["Training"] = (
        f"{len(run.epochs)} of {ceil(recipe.epochs) if recipe.epochs else '?'} epochs in {_format_duration(seconds)}"
    )
    if run.test is None:
        reason = "This run is not finished: there is no trained model yet"
    else:
        reason = "The network or the data of this run came from Python, and a report cannot load them"
    warning = f'<p class="warning">{reason}, so the page shows only logged metrics.</p>'
    return (warning if predictions is None else "") + _render_table((), facts.items(), "facts")


def _format_duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.1f} s" if minutes < 2 else f"{minutes:.1f} min" if hours < 2 else f"{hours:.1f} h"


def _render_pictures(names: Iterable[str], run: RunRecord, pictures: Mapping[str, Picture | str]) -> str:
    """Returns the named pictures with their captions. A sentence replaces each missing picture."""
    items = []
    for name in names:
        match pictures.get(name):
            case Picture() as picture:
                source = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"
                items.append(
                    f'<figure id="{name}" style="max-width: {max(picture.width, 330)}px">'
                    f'<img src="{source}" width="{picture.width}" alt="{_ALTERNATIVES[name]}">'
                    f"<figcaption>{escape(_caption(name, run))}</figcaption></figure>"
                )
            case str(sentence):
                items.append(f'<p class="note">{escape(sentence)}</p>')
    return "\n".join(items)


def _caption(name: str, run: RunRecord) -> str:
    """Returns the caption of a picture."""
    recipe = run.recipe
    images = ", on augmented images" if recipe.augment else ""
    series = f"Training: mean over the epoch, during training{images}."
    if run.series("validation_loss") is not None:
        images = "test images" if recipe.validation == "test" else "held-out images"
        series += f" Validation: at the end of the epoch, on {images}."
    smoothed = f" Training labels are smoothed by {recipe.label_smoothing:g}." if recipe.label_smoothing else ""
    return {
        "loss": f"Mean cross-entropy. {series}{smoothed}",
        "accuracy": f"Fraction of images whose most likely class is correct. {series}",
        "epoch_time": "Training time of each epoch. The first includes compilation; a resumed epoch counts only from "
        "where it was resumed.",
        "confusion": "Test images by true class (rows) and predicted class (columns), in percent of the true class. "
        "The color scale magnifies small fractions. Classes are in the order of the table.",
        "wrong": "The misclassified test images whose wrong class had the highest probability.",
        "heat": "Test images as the network sees them: correctly classified ones, then the mistakes whose wrong class "
        "had the highest probability. Below each image, over a gray copy, the Grad-CAM of its predicted class: black "
        "where the last feature map does not raise the score of this class, yellow where it raises the score most. "
        "Each image has its own scale.",
        "kernels": f"Weights of the first layer: at most {MAX_KERNELS} kernels, all on one scale. Zero is white, or "
        "mid-gray if the kernels are shown in color.",
        "augment": f"Training images, and three augmented versions of each: {', '.join(recipe.augment)}.",
    }[name]


def _render_classes(run: RunRecord, predictions: TestPredictions) -> str:
    """Returns the table of precision, recall and F1 per class. If the confusion matrix shows class numbers instead of
    names, the table shows each class number before its name."""
    names = run.classifier.class_names if run.classifier else ()
    if len(names) > MAX_NAMED_CLASSES:
        names = [f"{number}: {name}" for number, name in enumerate(names)]
    rows = [
        (name, *map(_format_percent, scores), f"{count:,}")
        for name, (*scores, count) in zip(names, predictions.per_class(), strict=True)
    ]
    return _render_table(("class", "precision (%)", "recall (%)", "F1 (%)", "test images"), rows, "classes")


def _format_percent(fraction: float) -> str:
    """Returns a percentage, or a dash for NaN."""
    return "-" if isnan(fraction) else f"{100 * fraction:.1f}"


def _render_table(head: Sequence[str], rows: Iterable[Sequence[object]], kind: str) -> str:
    """Returns an HTML table with all text escaped."""
    header = f"<thead><tr>{''.join(f'<th>{escape(title)}</th>' for title in head)}</tr></thead>" if head else ""
    lines = ("".join(f"<td>{escape(_format_cell(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<table class="{kind}">{header}<tbody>{body}</tbody></table>'


def _format_cell(cell: object) -> str:
    text = ", ".join(map(str, cell)) if isinstance(cell, list) else "-" if cell is None else str(cell)
    return printable(text, _MAX_CELL)


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line, _MAX_LINE) for line in text.splitlines())
