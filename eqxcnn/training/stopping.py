"""When a run has trained enough, which epoch was its best, and what to say of one whose loss is no number."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .checkpoint import Checkpoints
from .recipe import Recipe
from .step import TrainState


def best_epoch(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch, counted from 1, with the best `monitor`; better by no more than `early_stop_delta` is not better."""
    best, value = None, 0.0
    sign = -1 if recipe.monitor.endswith("loss") else 1
    for row in rows:
        found = sign * row.get(recipe.monitor, float("nan"))
        # A number that is none is never better.
        if found > value + recipe.early_stop_delta or (best is None and found == found):
            best, value = row["epoch"], found
    return best


def is_enough(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last `early_stop_epochs` epochs have brought nothing better."""
    best = best_epoch(recipe, rows)
    if not recipe.early_stop_epochs or best is None:
        return False
    return rows[-1]["epoch"] - best >= recipe.early_stop_epochs


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
        f"`learning_rate` below {recipe.learning_rate:g}, a `warmup_share` or `clip_norm`, look for wrong images{skip}"
    )
