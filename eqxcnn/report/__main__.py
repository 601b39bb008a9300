"""`python -m eqxcnn.report`: draws the report of a run or, with `--show-augment`, a recipe's augmented images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..cli import run_command
from ..errors import InputError
from ..recipe import Recipe, load_recipe
from . import show_augment, write_report


@dataclass(frozen=True)
class Options:
    """Draws the report of a run into its plots/: curves, confusion matrix, kernels, mistakes, and a page of all."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run's folder; leave it out with --show-augment."""
    data: str | None = None
    """Name of a data set, a Hub id or a local folder; by default that of the run or the recipe."""
    show_augment: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Without a run: draw nine augmented training images beside their originals."""
    recipe: str | None = None
    """With --show-augment: a YAML file, or the name of a shipped recipe."""
    augment: tuple[str, ...] | None = None
    """With --show-augment: transforms to show instead of the recipe's."""
    out: Path | None = None
    """With --show-augment: the file to write, by default augment.png; its suffix chooses the format."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, draws, and prints the path of the page or image."""
    options = tyro.cli(Options, prog="python -m eqxcnn.report", args=arguments)
    if options.show_augment:
        if options.run is not None:
            raise InputError(f"`--show-augment` takes no run: write --recipe {options.run / 'recipe.yaml'}")
        print(show_augment(_recipe(options), options.out or "augment.png"))
    elif options.run is None:
        raise InputError("there is nothing to draw: give a run's folder, or --show-augment")
    elif (options.recipe, options.augment, options.out) != (None, None, None):
        raise InputError("`--recipe`, `--augment` and `--out` go with --show-augment: leave them out for a run")
    else:
        print(write_report(options.run, data=options.data))


def _recipe(options: Options) -> Recipe:
    """Returns the recipe with the flags' changes."""
    flags = {"data": options.data, "augment": options.augment}
    recipe = Recipe() if options.recipe is None else load_recipe(options.recipe)
    return replace(recipe, **{name: value for name, value in flags.items() if value is not None})


if __name__ == "__main__":
    run_command(main)
