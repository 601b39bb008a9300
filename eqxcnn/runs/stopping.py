"""When a run has trained enough, which epochs were its best, and what to say of one whose loss is no number."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..recipe.recipe import Recipe
from ..training.step import TrainState
from .checkpoints import Checkpoints


def best_epochs(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The epochs, counted from 1, from the best `monitor` to the worst; among equal ones the earliest first."""
    found = [(monitor_score(recipe, row), row["epoch"]) for row in rows]
    # A number that is none has no place.
    ranked = sorted((pair for pair in found if pair[0] == pair[0]), key=lambda pair: (-pair[0], pair[1]))
    return [epoch for _, epoch in ranked]


def should_stop(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last `early_stop_epochs` epochs have brought nothing better by more than `early_stop_delta`."""
    last, value = None, 0.0
    for row in rows:
        found = monitor_score(recipe, row)
        if found > value + recipe.early_stop_delta or (last is None and found == found):
            last, value = row["epoch"], found
    if not recipe.early_stop_epochs or last is None:
        return False
    return rows[-1]["epoch"] - last >= recipe.early_stop_epochs


def monitor_score(recipe: Recipe, row: Mapping[str, Any]) -> float:
    """An epoch's `monitor`, larger where it is better."""
    value = row.get(recipe.monitor, float("nan"))
    return -value if recipe.monitor.endswith("loss") else value


def check_finite(recipe: Recipe, train: TrainState, checkpoints: Checkpoints, steps_per_epoch: int) -> None:
    """Looks at the epoch's sums for a loss that is no number.

    **Raises:** `InputError` telling the step, the newest checkpoint and what may help, unless the recipe skips such
    steps and there were others.
    """
    failed = int(train.sums.failed)
    if not failed or (recipe.on_nan == "skip" and int(train.sums.count)):
        return
    first = int(train.sums.first_failed)
    saved = [step for step in checkpoints.steps() if step < first]
    kept = f"the checkpoint of step {saved[-1]:,} is from before it" if saved else "no checkpoint is from before it"
    skip = "" if recipe.on_nan == "skip" else ", or leave such steps out with `--on-nan skip`"
    raise InputError(
        f"the loss is not a number at step {first:,}, in epoch {(first - 1) // steps_per_epoch + 1} ({kept}): try a "
        f"`learning_rate` below {recipe.learning_rate:g}, a `warmup_fraction` or `clip_norm`, look for wrong "
        f"images{skip}"
    )
