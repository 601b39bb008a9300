"""`python -m eqxcnn.report`: draws a run; or, with `--show-augment`, what a recipe does to images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..cli import run_command
from ..errors import InputError
from ..training import Recipe, load_recipe
from . import show_augment, write_report


@dataclass(frozen=True)
class Options:
    """Draw a run into its plots/ folder: curves, confusion matrix, kernels, mistakes, and a page with all of them."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run's folder; leave it out with --show-augment."""
    data: str | None = None
    """A data set's name, a Hub id or a local folder; by default what the run or the recipe names."""
    show_augment: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Without a run: draw nine augmented training images beside their originals."""
    recipe: str | None = None
    """With --show-augment: a YAML file, or a shipped recipe's name."""
    augment: tuple[str, ...] | None = None
    """With --show-augment: transforms to show instead of the recipe's."""
    out: Path | None = None
    """With --show-augment: the picture's file, by default augment.png; its ending says the format."""


def main(arguments: Sequence[str]) -> None:
    """Parses, draws, prints the path of what was drawn."""
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
    """The recipe with what the flags say instead."""
    flags = {"data": options.data, "augment": options.augment}
    recipe = Recipe() if options.recipe is None else load_recipe(options.recipe)
    return replace(recipe, **{name: value for name, value in flags.items() if value is not None})


if __name__ == "__main__":
    run_command(main)
