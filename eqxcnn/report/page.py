"""The page: one HTML file that holds its pictures, so that it can be sent and kept as it is."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, isnan

from ..cost import count_parameters
from ..plots.figures import CLASSES_NAMED, KERNELS_SHOWN
from .gather import RunRecord, TestPredictions

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


@dataclass(frozen=True)
class Picture:
    """A drawn picture: the file's bytes, its media type, and its width in CSS pixels (96 an inch)."""

    data: bytes
    media_type: str
    width: int


def render(run: RunRecord, verdict: TestPredictions | None, shown: Mapping[str, Picture | str]) -> str:
    """The page of a run.

    **Arguments:**

    - `run`, `verdict`: see `gather`; no verdict while the run is not finished.
    - `shown`: by name, a picture, or the sentence that stands in its place.
    """
    title = escape(run.folder.resolve().name)
    curves = _items(("loss", "accuracy", "epoch_time"), run, shown)
    body = [f"<h1>{title}</h1>", _facts(run, verdict), "<h2>Training</h2>", f'<div class="row three">{curves}</div>']
    if verdict is not None:
        classes = _items(["confusion"], run, shown) + _classes(run, verdict)
        body += ["<h2>Classes</h2>", f'<div class="row">{classes}</div>']
        body += ["<h2>Most confidently wrong</h2>", _items(["wrong"], run, shown)]
        body += ["<h2>First layer</h2>", _items(["kernels"], run, shown)]
        body += ["<h2>Augmentation</h2>", _items(["augment"], run, shown)]
    body += ["<h2>Recipe</h2>", f"<pre>{escape(run.recipe_text)}</pre>"]
    if run.environment:
        body += ["<h2>Environment</h2>", _table((), run.environment.items(), "facts")]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _facts(run: RunRecord, verdict: TestPredictions | None) -> str:
    """What one wants to know first."""
    recipe, facts = run.recipe, {}
    if run.classifier is not None and verdict is not None:
        weights = count_parameters(run.classifier.model)
        size = " x ".join(map(str, (*run.classifier.image_size, run.classifier.in_channels)))
        facts["Test accuracy"] = f"{verdict.accuracy:.2%} of {len(verdict.labels):,} images"
        facts["Test loss"] = f"{verdict.loss:.4f} nats"
        facts["Model"] = f"{recipe.model}, {weights:,} parameters, input {size}"
        facts["Data"] = f"{recipe.data}, {len(run.classifier.class_names)} classes"
    else:
        facts |= {"Model": recipe.model, "Data": recipe.data}
    seconds = sum(run.series("seconds") or [], 0.0)
    facts["Training"] = (
        f"{len(run.epochs)} of {ceil(recipe.epochs) if recipe.epochs else '?'} epochs in {_duration(seconds)}"
    )
    unfinished = (
        '<p class="warning">This run is not finished: there is no trained model to look at yet, only what has been '
        "logged so far.</p>"
    )
    return (unfinished if verdict is None else "") + _table((), facts.items(), "facts")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.1f} s" if minutes < 2 else f"{minutes:.1f} min" if hours < 2 else f"{hours:.1f} h"


def _items(names: Iterable[str], run: RunRecord, shown: Mapping[str, Picture | str]) -> str:
    """Pictures with their captions, and the sentences that stand for pictures."""
    items = []
    for name in names:
        match shown.get(name):
            case Picture() as picture:
                source = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"
                items.append(
                    f'<figure style="max-width: {max(picture.width, 330)}px">'
                    f'<img src="{source}" width="{picture.width}" alt="{name}">'
                    f"<figcaption>{escape(_caption(name, run))}</figcaption></figure>"
                )
            case str(sentence):
                items.append(f'<p class="note">{escape(sentence)}</p>')
    return "\n".join(items)


def _caption(name: str, run: RunRecord) -> str:
    """How to read a picture."""
    recipe = run.recipe
    images = ", on augmented images" if recipe.augment else ""
    series = f"Training: over the epoch, while the weights still move{images}."
    if run.series("validation_loss") is not None:
        whose = "on the test images" if recipe.validation == "test" else "on images held out"
        series += f" Validation: at its end, {whose}."
    smoothed = f" Labels are smoothed by {recipe.label_smoothing:g} in training." if recipe.label_smoothing else ""
    return {
        "loss": f"Mean cross-entropy. {series}{smoothed}",
        "accuracy": f"Share of images whose likeliest class is theirs. {series}",
        "epoch_time": "Training time of each epoch. The first includes compilation; one that was resumed counts only "
        "from there.",
        "confusion": "Test images by true class (rows) and predicted class (columns), in per cent of the true class. "
        "The colors give small shares more room. Classes stand in the order of the table.",
        "wrong": "The wrongly classified test images whose wrong class had the highest probability.",
        "kernels": f"Weights of the first layer that sees the image: its kernels, {KERNELS_SHOWN} at most, all on one "
        "scale. Zero is white, or mid-gray where the three channels are shown as colors.",
        "augment": f"Training images, and what the recipe makes of each in three draws: {', '.join(recipe.augment)}.",
    }[name]


def _classes(run: RunRecord, verdict: TestPredictions) -> str:
    """Precision, recall and F1 of each class; numbered where the confusion matrix numbers them."""
    names = run.classifier.class_names if run.classifier else ()
    if len(names) > CLASSES_NAMED:
        names = [f"{number}: {name}" for number, name in enumerate(names)]
    rows = [
        (name, *map(_percent, scores), f"{count:,}")
        for name, (*scores, count) in zip(names, verdict.per_class(), strict=True)
    ]
    return _table(("class", "precision (%)", "recall (%)", "F1 (%)", "test images"), rows, "classes")


def _percent(share: float) -> str:
    """Per cent, or a dash where there was nothing to share."""
    return "-" if isnan(share) else f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], kind: str) -> str:
    """A table of texts, all of them escaped."""
    above = f"<thead><tr>{''.join(f'<th>{escape(each)}</th>' for each in head)}</tr></thead>" if head else ""
    lines = ("".join(f"<td>{escape(_text(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<table class="{kind}">{above}<tbody>{body}</tbody></table>'


def _text(cell: object) -> str:
    return ", ".join(map(str, cell)) if isinstance(cell, list) else "-" if cell is None else str(cell)
