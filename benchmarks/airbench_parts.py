"""`python -m benchmarks.airbench_parts`: what each part of airbench94's training is worth in a short run on a CPU.

The recipe `cifar_fast`, that training on a narrow network, cut to few epochs: once whole, and once without each part.
Every trained network is tested twice, with the six views of the multi-crop test and with one: that is the last part. A
run's time goes from opening the decoded data to the end of its test.
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

from .markdown import number
from .timing import RESULTS, Rows, check, write_rows

_RECIPE = load_recipe("cifar_fast")


def _without(*patterns: str) -> tuple[str, ...]:
    """The recipe's learning-rate factors but those of these parameters."""
    return tuple(each for each in _RECIPE.learning_rate_factors if each.partition("=")[0] not in patterns)


#: What a part is called, and the settings that leave it out.
PARTS: dict[str, dict[str, Any]] = {
    # The first layer is then an ordinary one: random, and trained to the end.
    "whitening": {"init_images": 0, "learning_rate_factors": _without("whiten.weight", "whiten.bias")},
    "Dirac": {"architecture": ("dirac=False",)},
    "bias learning rate x64": {"learning_rate_factors": _without("*norm*.bias")},
    "lookahead": {"lookahead_every": 0},
    "alternating flip": {
        "augment": tuple("flip_horizontal" if each == "alternating_flip" else each for each in _RECIPE.augment)
    },
}


@dataclass(frozen=True)
class Options:
    """Trains a narrow airbench94 for few epochs, whole and without each of its parts."""

    data: str = _RECIPE.data
    """A data set's name or folder."""
    epochs: float = 2.0
    """Of each training."""
    seeds: int = 1
    """How many seeds, from 0 on."""
    train_images: int | None = None
    """Use only this many training images; by default all."""
    parts: tuple[str, ...] = tuple(PARTS)
    """The parts that are left out, one at a time."""
    out: Path = RESULTS / "airbench_parts.json"
    """The file that the results go to."""


class Trained(NamedTuple):
    """A run's seconds, and its test accuracy in per cent with the recipe's views and with one."""

    seconds: float
    accuracy: float
    one_view: float


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.airbench_parts", args=arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        raise InputError(f"`parts`: there is no `{unknown[0]}`, only {', '.join(PARTS)}")
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check(2, options.out)
    whole = replace(_RECIPE, data=options.data, epochs=options.epochs, train_images=options.train_images)
    cases = {"nothing": whole, **{part: replace(whole, **PARTS[part]) for part in options.parts}}
    runs = {
        part: [train(replace(recipe, seed=seed)) for seed in range(options.seeds)] for part, recipe in cases.items()
    }
    lines = [_line(part, trained, runs["nothing"]) for part, trained in runs.items()]
    head = (
        "left out", "test accuracy (%)", "less than whole", "with one view (%)", "multi-crop test is worth", "seconds",
    )  # fmt: skip
    title = f"{options.epochs:g} epochs of the recipe `cifar_fast`, without one part at a time; seeds: {options.seeds}"
    write_rows("airbench_parts", title, arguments, [Rows(head, lines)], options.out)


def train(recipe: Recipe) -> Trained:
    """Trains in this process, into a folder that is then removed."""
    with TemporaryDirectory() as runs:
        result = fit(recipe, runs=runs)
        classifier = load(result.folder)
    test = load_data(recipe.data, "test", image_size=classifier.image_size, channels=classifier.in_channels)
    evaluate = Evaluator(classifier.mean, classifier.std, len(classifier.class_names))
    alone = evaluate(classifier.model, classifier.state, test.images, test.labels)
    return Trained(result.metrics[-1]["wall_seconds"], 100 * result.test.accuracy, 100 * alone.accuracy)


def _line(part: str, trained: Sequence[Trained], whole: Sequence[Trained]) -> tuple[str, ...]:
    """A part's line: means over the seeds, and how far below those of the whole training."""
    seconds, accuracy, one_view = (sum(each) / len(trained) for each in zip(*trained, strict=True))
    best = sum(each.accuracy for each in whole) / len(whole)
    return (
        part, f"{accuracy:.2f}", "-" if trained is whole else f"{best - accuracy:.2f}", f"{one_view:.2f}",
        f"{accuracy - one_view:.2f}", number(seconds),
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
