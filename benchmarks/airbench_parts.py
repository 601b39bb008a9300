"""`python -m benchmarks.airbench_parts`: the accuracy that each part of airbench94's training adds in a short CPU run.

Trains `airbench94_narrow` with the recipe `airbench94`, at a quarter of the batch size and learning rate, for a few
epochs: once with all parts of this training, and then with each part left out in turn. Every trained network is tested
with the six views of the multi-crop test and with a single view, to measure what the multi-crop test adds. The time
includes decoding, training and the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import tyro

from eqxcnn import load
from eqxcnn.cli import run_command
from eqxcnn.data import load as load_data
from eqxcnn.errors import InputError
from eqxcnn.training import Evaluator, Recipe, fit, load_recipe

from .markdown import format_number
from .timing import RESULTS, ResultTable, check_options, write_tables

_RECIPE = load_recipe("airbench94").replace(
    model="airbench94_narrow", batch_size=256, learning_rate=0.375, precision="float32"
)


def _factors_without(*patterns: str) -> tuple[str, ...]:
    """Returns the recipe's learning-rate factors without the factors of the given patterns."""
    return tuple(factor for factor in _RECIPE.learning_rate_factors if factor.partition("=")[0] not in patterns)


#: Each part's name, and the settings that leave it out.
PARTS: dict[str, dict[str, Any]] = {
    # The first layer then starts from random weights and is trained like the others.
    "whitening": {"init_images": 0, "learning_rate_factors": _factors_without("whiten.weight", "whiten.bias")},
    "Dirac": {"architecture": ("dirac=False",)},
    "bias learning rate x64": {"learning_rate_factors": _factors_without("*norm*.bias")},
    "lookahead": {"lookahead_every": 0},
    "alternating flip": {
        "augment": tuple("flip_horizontal" if name == "alternating_flip" else name for name in _RECIPE.augment)
    },
}


@dataclass(frozen=True)
class Options:
    """Train a narrow airbench94 for a few epochs, first with all parts of its training, then without each part."""

    data: str = _RECIPE.data
    """A data set's name or folder."""
    epochs: float = 2.0
    """Epochs of each training run."""
    seeds: int = 1
    """Number of seeds, starting from 0."""
    train_images: int | None = None
    """Use only the first training images; by default all."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Parts to leave out, one at a time."""
    out: Path = RESULTS / "airbench_parts.json"
    """Path of the results file."""


class TrainingResult(NamedTuple):
    """Seconds of a run, and its test accuracy in percent with the recipe's views and with a single view."""

    seconds: float
    accuracy: float
    one_view: float


def main(arguments: Sequence[str]) -> None:
    """Parses the options, trains the networks, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.airbench_parts", args=arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        raise InputError(f"`parts` (={unknown[0]!r}) must be among {', '.join(PARTS)}")
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check_options(2, options.out)
    complete = replace(_RECIPE, data=options.data, epochs=options.epochs, train_images=options.train_images)
    cases = {"nothing": complete, **{part: replace(complete, **PARTS[part]) for part in options.parts}}
    results = {
        part: [train(replace(recipe, seed=seed)) for seed in range(options.seeds)] for part, recipe in cases.items()
    }
    rows = [_make_row(part, runs, results["nothing"]) for part, runs in results.items()]
    head = ("left out", "test accuracy (%)", "loss of accuracy", "one view (%)", "gain from multi-crop", "seconds")
    title = f"`airbench94_narrow` for {options.epochs:g} epochs, leaving out one part at a time; seeds: {options.seeds}"
    write_tables("airbench_parts", title, arguments, [ResultTable(head, rows)], options.out)


def train(recipe: Recipe) -> TrainingResult:
    """Trains and tests in this process, in a temporary folder."""
    with TemporaryDirectory() as runs:
        result = fit(recipe, runs=runs)
        classifier = load(result.folder)
    test = load_data(recipe.data, "test", image_size=classifier.image_size, channels=classifier.in_channels)
    evaluate = Evaluator(classifier.mean, classifier.std, len(classifier.class_names))
    one_view = evaluate(classifier.model, classifier.state, test.images, test.labels)
    return TrainingResult(result.metrics[-1]["wall_seconds"], 100 * result.test.accuracy, 100 * one_view.accuracy)


def _make_row(part: str, runs: Sequence[TrainingResult], complete_runs: Sequence[TrainingResult]) -> tuple[str, ...]:
    """Returns the row of a part: means over the seeds, and the accuracy that is lost if the part is left out."""
    seconds, accuracy, one_view = (sum(values) / len(runs) for values in zip(*runs, strict=True))
    complete = sum(run.accuracy for run in complete_runs) / len(complete_runs)
    return (
        part, f"{accuracy:.2f}", "-" if runs is complete_runs else f"{complete - accuracy:.2f}", f"{one_view:.2f}",
        f"{accuracy - one_view:.2f}", format_number(seconds),
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
