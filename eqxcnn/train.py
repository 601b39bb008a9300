"""`python -m eqxcnn.train`: trains a model by a recipe, by flags, or by both."""

import sys
from collections.abc import Sequence

from .cli import run_command
from .recipe.files import format_recipe_list
from .recipe.options import Options, parse
from .training import Interrupted, Result, SeedSweepResult, dry_run, fit, fit_seeds, is_seed_sweep, resume, resume_seeds


def main(arguments: Sequence[str]) -> None:
    """Parses, trains, prints the test accuracy."""
    options = parse(arguments)
    if options.list_recipes:
        print(format_recipe_list())
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
        print(format_result(run_training(options)))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)


def run_training(options: Options) -> Result | SeedSweepResult:
    """What training as the options say comes to."""
    if options.resume is not None:
        return resume_seeds(options.resume) if is_seed_sweep(options.resume) else resume(options.resume)
    if options.seeds > 1:
        return fit_seeds(options.as_recipe, options.seeds, runs=options.runs)
    return fit(options.as_recipe, runs=options.runs)


def format_result(result: Result | SeedSweepResult) -> str:
    """The line that ends a run."""
    if isinstance(result, SeedSweepResult):
        each = ", ".join(f"{accuracy:.2%}" for accuracy in result.accuracies.values())
        mean = f"test accuracy {result.mean:.2%} ± {result.deviation:.2%}"
        return f"{mean}, mean and deviation of {len(result.accuracies)} seeds ({each}); the runs are in {result.folder}"
    return f"test accuracy {result.test.accuracy:.2%} on {result.test.count:,} images; the run is in {result.folder}"


if __name__ == "__main__":
    run_command(main)
