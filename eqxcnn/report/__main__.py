"""`python -m eqxcnn.report`: writes a run's report, or draws a recipe's augmented images with `--show-augment`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..cli import run_command
from ..errors import InputError, printable
from ..plugins import IMPORT_HELP, take_imports
from ..ranges import Items, check_settings
from ..recipe import Recipe, load_recipe
from . import show_augment, write_report


@dataclass(frozen=True)
class Options:
    """Draws a run's report into its plots/ folder: curves, confusion matrix, kernels, mistakes, and an HTML page."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the run to draw; not allowed with --show-augment."""
    data: str | None = None
    """A data set's name, a Hub id or a local folder; by default the data of the run or recipe."""
    show_augment: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Without a run: draw nine augmented training images beside their originals."""
    recipe: str | None = None
    """With --show-augment: a YAML file, or the name of a shipped recipe."""
    augment: Annotated[tuple[str, ...], Items(100)] | None = None
    """With --show-augment: transforms to use instead of the recipe's transforms."""
    out: Path | None = None
    """With --show-augment: path of the picture, by default augment.png; its extension sets the format."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, draws, and prints the path of the page or picture."""
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.report", description=help_, args=arguments)
    check_settings(options)
    if options.show_augment:
        if options.run is not None:
            raise InputError(
                f"`run` (={str(options.run)!r}) cannot be given with --show-augment: use "
                f"--recipe {options.run / 'recipe.yaml'}"
            )
        written = show_augment(_load_recipe(options), options.out or "augment.png")
    elif options.run is None:
        raise InputError("`run` is missing: give a run's folder, or --show-augment")
    elif (options.recipe, options.augment, options.out) != (None, None, None):
        raise InputError("`--recipe`, `--augment` and `--out` need --show-augment: omit them for a run")
    else:
        written = write_report(options.run, data=options.data)
    print(printable(str(written), 4096))


def _load_recipe(options: Options) -> Recipe:
    """Returns the recipe; flags override its settings."""
    flags = {"data": options.data, "augment": options.augment}
    recipe = Recipe() if options.recipe is None else load_recipe(options.recipe)
    return replace(recipe, **{name: value for name, value in flags.items() if value is not None})


if __name__ == "__main__":
    run_command(main)
