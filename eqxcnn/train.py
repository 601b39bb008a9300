"""`python -m eqxcnn.train`: trains a model by a recipe, by flags, or by both."""

import sys
from collections.abc import Sequence

from .cli import run_command
from .training import Interrupted, Result, Seeds, dry_run, fit, fit_seeds, is_of_seeds, resume, resume_seeds
from .training.options import Options, parse
from .training.recipe_files import shelf


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints the test accuracy."""
    options = parse(arguments)
    if options.list_recipes:
        print(shelf())
        return
    if options.data == "digits" and options.resume is None:
        print(
            "training on 1,797 small digits bundled with scikit-learn; `--data mnist` is the real thing",
            file=sys.stderr,
        )
    if options.dry_run:
        print(dry_run(options.as_recipe))
        return
    try:
        print(told(trained(options)))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)


def trained(options: Options) -> Result | Seeds:
    """What training as the options say comes to."""
    if options.resume is not None:
        return resume_seeds(options.resume) if is_of_seeds(options.resume) else resume(options.resume)
    if options.seeds > 1:
        return fit_seeds(options.as_recipe, options.seeds, runs=options.runs)
    return fit(options.as_recipe, runs=options.runs)


def told(result: Result | Seeds) -> str:
    """The line that ends a run."""
    if isinstance(result, Seeds):
        each = ", ".join(f"{accuracy:.2%}" for accuracy in result.accuracies.values())
        mean = f"test accuracy {result.mean:.2%} ± {result.deviation:.2%}"
        return f"{mean}, mean and deviation of {len(result.accuracies)} seeds ({each}); the runs are in {result.folder}"
    return f"test accuracy {result.test.accuracy:.2%} on {result.test.count:,} images; the run is in {result.folder}"


if __name__ == "__main__":
    run_command(main)
