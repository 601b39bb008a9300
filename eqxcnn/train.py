"""`python -m eqxcnn.train`: trains a model by a recipe, by flags, or by both."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from .cli import run_command
from .errors import InputError
from .training import Interrupted, Recipe, fit, load_recipe, resume


@dataclass(frozen=True)
class Options(Recipe):
    """Train an image classifier; the result is a folder that evaluate, predict and eqxcnn.load understand."""

    recipe: str | None = None
    """A YAML file, or a shipped recipe's name; other flags win over what it says."""
    resume: Path | None = None
    """Go on with this stopped run, by its own recipe: no other flag goes with it."""
    runs: Path = Path("runs")
    """The folder that the run's own folder is made in."""

    def __post_init__(self) -> None:
        """Nothing is checked here, inside the parser's own error boxes, but when the recipe is made of the options."""


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints the test accuracy."""
    options = parse(arguments)
    try:
        result = resume(options.resume) if options.resume else fit(recipe_of(options), runs=options.runs)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    print(f"test accuracy {result.test.accuracy:.2%} on {result.test.count:,} images; the run is in {result.folder}")


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line, the recipe's values standing where no flag is."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--recipe", nargs="?")  # the other parser complains when its value is missing
    name = first.parse_known_args(arguments)[0].recipe
    values = dataclasses.asdict(load_recipe(name)) if name is not None else {}
    options = tyro.cli(Options, prog="python -m eqxcnn.train", args=arguments, default=Options(**values))
    if options.resume is not None and dataclasses.replace(options, resume=None) != Options():
        raise InputError("`--resume` goes on by the run's own recipe: leave the other flags out")
    return options


def recipe_of(options: Options) -> Recipe:
    """The recipe among the options, saying so when it is the little bundled data set that will be used."""
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)})
    if options.data == "digits":
        print(
            "training on 1,797 small digits bundled with scikit-learn; `--data mnist` is the real thing",
            file=sys.stderr,
        )
    return recipe


if __name__ == "__main__":
    run_command(main)
