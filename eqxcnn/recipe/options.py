"""The command line of `python -m eqxcnn.train`: a recipe's settings as flags, and what to do with them."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .files import load_recipe
from .recipe import Recipe


@dataclass(frozen=True)
class Options(Recipe):
    """Train an image classifier; the result is a folder that evaluate, predict and eqxcnn.load understand."""

    recipe: str | None = None
    """A YAML file, or a shipped recipe's name; other flags win over what it says."""
    resume: Path | None = None
    """Go on with this stopped run (or folder of seeds), by its own recipe: no other flag goes with it."""
    runs: Path = Path("runs")
    """The folder that the run's own folder is made in."""
    seeds: int = 1
    """Train under so many seeds, from `seed` on, and tell mean and deviation."""
    dry_run: bool = False
    """Only compile the step and run it twice: time and memory, and no run."""
    list_recipes: bool = False
    """Only list the recipes that come with the package."""

    def __post_init__(self) -> None:
        """Nothing is checked here, inside the parser's own error boxes, but when the recipe is made of the options."""

    @property
    def as_recipe(self) -> Recipe:
        """The recipe among the options, its values checked."""
        return Recipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)})


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line, the recipe's values standing where no flag is.

    **Raises:** `InputError` for flags that do not go together, `SystemExit` for one that cannot be parsed.
    """
    import tyro  # takes half a second

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--recipe", nargs="?")  # the other parser complains when its value is missing
    name = first.parse_known_args(arguments)[0].recipe
    values = dataclasses.asdict(load_recipe(name)) if name is not None else {}
    options = tyro.cli(Options, prog="python -m eqxcnn.train", args=arguments, default=Options(**values))
    if options.resume is not None and dataclasses.replace(options, resume=None) != Options():
        raise InputError("`--resume` goes on by the run's own recipe: leave the other flags out")
    if options.seeds < 1:
        raise InputError(f"`seeds` (={options.seeds}) must be 1 or more")
    return options
