"""`python -m benchmarks.fine_tuning`: test accuracy on cats and dogs, fine-tuned from CIFAR-10 and from scratch.

Trains the network of the recipe `catsdogs_finetune` in three ways: the whole network from the weights of a run of
`cifar_fast`, the head alone from the same weights, and the whole network from scratch. Training from scratch uses a
whitening first layer, and the learning rate of `cifar_fast`, scaled to the batch size. The head trains for more epochs,
so that all three take about the same time. The time includes decoding, training and the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, fit, load_recipe

from .markdown import format_number
from .timing import RESULTS, ResultTable, check_options, write_tables

_RECIPE, _SOURCE = load_recipe("catsdogs_finetune"), load_recipe("cifar_fast")
_FROM_SCRATCH: dict[str, Any] = {
    "init_from": None,
    "init_images": _SOURCE.init_images,
    "learning_rate": _SOURCE.learning_rate * _RECIPE.batch_size / _SOURCE.batch_size,
}
#: A head on frozen features tolerates a higher learning rate.
_HEAD_ONLY: dict[str, Any] = {"freeze": ("backbone",), "learning_rate": 0.2, "learning_rate_factors": ()}


@dataclass(frozen=True)
class Options:
    """Train on cats and dogs from weights trained on CIFAR-10, and from scratch."""

    data: str = _RECIPE.data
    """The data set's name or folder."""
    source: Path | None = None
    """A finished run of the recipe `cifar_fast`; by default it is trained first."""
    source_data: str = _SOURCE.data
    """CIFAR-10's name or folder, if `cifar_fast` has to be trained."""
    epochs: float = 5.0
    """Epochs of fine-tuning."""
    seeds: int = 1
    """Number of seeds, starting from 0."""
    train_images: int | None = None
    """Use only the first training images of each set; by default all."""
    out: Path = RESULTS / "fine_tuning.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, trains, writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.fine_tuning", args=arguments)
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check_options(2, options.out)
    with TemporaryDirectory() as runs:
        source = (
            options.source
            or fit(replace(_SOURCE, data=options.source_data, train_images=options.train_images), runs=runs).folder
        )
        tuned = replace(
            _RECIPE, data=options.data, epochs=options.epochs, train_images=options.train_images, init_from=str(source)
        )
        head = replace(tuned, **_HEAD_ONLY)
        # Epochs of the head alone take less time, so the head trains for more of them.
        head = replace(head, epochs=options.epochs * _epoch_seconds(tuned, runs) / _epoch_seconds(head, runs))
        cases = {"from scratch": replace(tuned, **_FROM_SCRATCH), "fine-tuned": tuned, "head only": head}
        rows = [_make_row(name, recipe, options.seeds, runs) for name, recipe in cases.items()]
    table_head = ("start", "epochs", "test accuracy (%)", "seconds")
    title = f"The recipe `catsdogs_finetune`, and the same network from scratch; seeds: {options.seeds}"
    write_tables("fine_tuning", title, arguments, [ResultTable(table_head, rows)], options.out)


def _epoch_seconds(recipe: Recipe, runs: str) -> float:
    """Returns the time of the second epoch, since the first includes compilation."""
    return fit(replace(recipe, epochs=2), runs=runs).metrics[1]["seconds"]


def _make_row(name: str, recipe: Recipe, seeds: int, runs: str) -> tuple[str, ...]:
    """Returns a row with the means over the seeds."""
    results = [fit(replace(recipe, seed=seed), runs=runs) for seed in range(seeds)]
    accuracy = sum(result.test.accuracy for result in results) / seeds
    seconds = sum(result.metrics[-1]["wall_seconds"] for result in results) / seeds
    return name, f"{recipe.epochs:.1f}", f"{100 * accuracy:.2f}", format_number(seconds)


if __name__ == "__main__":
    run_command(main)
