"""`python -m benchmarks.fine_tuning`: what a network that has learnt CIFAR-10 is worth on cats and dogs, at equal time.

The recipe `catsdogs_finetune` from a run of `cifar_fast`, all of the network learning and its head alone, beside the
same network from scratch: at the learning rate of `cifar_fast` for its batches, its first layer whitening patches. Each
has as many epochs as fit into the time of fine-tuning; the time told goes from opening the decoded data to the end of
the test.
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

from .markdown import number
from .timing import RESULTS, Rows, check, write_rows

_RECIPE, _SOURCE = load_recipe("catsdogs_finetune"), load_recipe("cifar_fast")
_FROM_SCRATCH: dict[str, Any] = {
    "init_from": None,
    "init_images": _SOURCE.init_images,
    "learning_rate": _SOURCE.learning_rate * _RECIPE.batch_size / _SOURCE.batch_size,
}
#: A head behind features that stay as they are bears a higher rate.
_HEAD_ONLY: dict[str, Any] = {"freeze": ("backbone",), "learning_rate": 0.2, "learning_rate_factors": ()}


@dataclass(frozen=True)
class Options:
    """Trains on cats and dogs from what CIFAR-10 has taught, and from scratch."""

    data: str = _RECIPE.data
    """The data set's name or folder."""
    source: Path | None = None
    """A finished run of the recipe `cifar_fast`; by default that is trained first."""
    source_data: str = _SOURCE.data
    """CIFAR-10's name or folder, where that is so."""
    epochs: float = 5.0
    """Of fine-tuning."""
    seeds: int = 1
    """How many seeds, from 0 on."""
    train_images: int | None = None
    """Use only this many training images of each set; by default all."""
    out: Path = RESULTS / "fine_tuning.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.fine_tuning", args=arguments)
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    check(2, options.out)
    with TemporaryDirectory() as runs:
        source = (
            options.source
            or fit(replace(_SOURCE, data=options.source_data, train_images=options.train_images), runs=runs).folder
        )
        tuned = replace(
            _RECIPE, data=options.data, epochs=options.epochs, train_images=options.train_images, init_from=str(source)
        )
        head = replace(tuned, **_HEAD_ONLY)
        # Its steps are shorter, so that it has more of them.
        head = replace(head, epochs=options.epochs * _epoch_seconds(tuned, runs) / _epoch_seconds(head, runs))
        cases = {"from scratch": replace(tuned, **_FROM_SCRATCH), "fine-tuned": tuned, "only the head": head}
        lines = [_line(name, recipe, options.seeds, runs) for name, recipe in cases.items()]
    head_row = ("start", "epochs", "test accuracy (%)", "seconds")
    title = f"the recipe `catsdogs_finetune` beside the same network from scratch; seeds: {options.seeds}"
    write_rows("fine_tuning", title, arguments, [Rows(head_row, lines)], options.out)


def _epoch_seconds(recipe: Recipe, runs: str) -> float:
    """How long an epoch takes, the first one, in which steps are compiled, left out."""
    return fit(replace(recipe, epochs=2), runs=runs).metrics[1]["seconds"]


def _line(name: str, recipe: Recipe, seeds: int, runs: str) -> tuple[str, ...]:
    """A start's line: means over the seeds."""
    results = [fit(replace(recipe, seed=seed), runs=runs) for seed in range(seeds)]
    accuracy = sum(result.test.accuracy for result in results) / seeds
    seconds = sum(result.metrics[-1]["wall_seconds"] for result in results) / seeds
    return name, f"{recipe.epochs:.1f}", f"{100 * accuracy:.2f}", number(seconds)


if __name__ == "__main__":
    run_command(main)
