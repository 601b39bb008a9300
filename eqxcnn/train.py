"""`python -m eqxcnn.train`: trains a model from a recipe, from flags, or from both."""

import sys
from collections.abc import Sequence

from .cli import run_command
from .errors import printable
from .recipe.command_line import Flags, parse_flags
from .recipe.files import format_recipe_list
from .runtime.processes import join_processes
from .training import (
    Interrupted,
    Result,
    SeedSweepResult,
    dry_run,
    fit,
    fit_seeds,
    is_seed_sweep,
    resume,
    resume_seeds,
)

__all__ = ["format_result", "main", "run_training"]

_MAX_PATH = 4096


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, trains, and prints the test accuracy."""
    flags = parse_flags(arguments)
    if flags.list_recipes:
        print(format_recipe_list())
        return
    peers = join_processes(
        flags.coordinator, flags.processes, flags.process, timeout=flags.join_timeout, logs=flags.runs
    )
    if flags.data.data == "digits" and flags.resume is None:
        print(
            "training on the 1,797 small digits bundled with scikit-learn; use `--data mnist` for MNIST",
            file=sys.stderr,
        )
    try:
        with peers.guard():
            print(dry_run(flags.to_recipe()) if flags.dry_run else format_result(run_training(flags)))
    except Interrupted as stop:
        print(printable(str(stop), _MAX_PATH), file=sys.stderr)
        sys.exit(128 + stop.signal)


def run_training(flags: Flags) -> Result | SeedSweepResult:
    """Runs the training that the flags ask for."""
    if flags.resume is not None:
        return resume_seeds(flags.resume) if is_seed_sweep(flags.resume) else resume(flags.resume)
    if flags.seeds > 1:
        return fit_seeds(flags.to_recipe(), flags.seeds, runs=flags.runs, name=flags.name)
    return fit(flags.to_recipe(), runs=flags.runs, name=flags.name)


def format_result(result: Result | SeedSweepResult) -> str:
    """Returns the summary line of a run or a seed sweep."""
    folder = printable(str(result.folder), _MAX_PATH)
    if isinstance(result, SeedSweepResult):
        accuracies = ", ".join(f"{accuracy:.2%}" for accuracy in result.accuracies.values())
        mean = f"test accuracy {result.mean:.2%} ± {result.deviation:.2%}"
        count = len(result.accuracies)
        return f"{mean}, mean and deviation of {count} seeds ({accuracies}); the runs are in {folder}"
    return f"test accuracy {result.test.accuracy:.2%} on {result.test.count:,} images; the run is in {folder}"


if __name__ == "__main__":
    run_command(main)
