"""Early stopping, the best epochs of a run, and the check for a loss that is not finite."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..recipe import Recipe
from .checkpoints import Checkpoints

__all__ = ["best_epochs", "check_finite", "monitor_score", "should_stop"]


def best_epochs(recipe: Recipe, rows: Sequence[Mapping[str, Any]], lower_is_better: Collection[str] = ()) -> list[int]:
    """Returns the epochs, counted from 1, in order of `monitor`, the best first.

    In a tie the earlier epoch comes first. Epochs whose `monitor` is NaN are left out.

    **Arguments:**

    - `lower_is_better`: names of metrics, besides losses, for which lower values are better.
    """
    scores = [(monitor_score(recipe, row, lower_is_better), row["epoch"]) for row in rows]
    ranked = sorted((pair for pair in scores if pair[0] == pair[0]), key=lambda pair: (-pair[0], pair[1]))
    return [epoch for _, epoch in ranked]


def should_stop(recipe: Recipe, rows: Sequence[Mapping[str, Any]], lower_is_better: Collection[str] = ()) -> bool:
    """Returns whether the last `early_stop_epochs` epochs improved `monitor` by no more than `early_stop_delta`."""
    best_epoch, best = None, 0.0
    for row in rows:
        score = monitor_score(recipe, row, lower_is_better)
        if score > best + recipe.early_stop_delta or (best_epoch is None and score == score):
            best_epoch, best = row["epoch"], score
    if not recipe.early_stop_epochs or best_epoch is None:
        return False
    return rows[-1]["epoch"] - best_epoch >= recipe.early_stop_epochs


def monitor_score(recipe: Recipe, row: Mapping[str, Any], lower_is_better: Collection[str] = ()) -> float | int:
    """Returns an epoch's `monitor`, with its sign changed if lower values are better; NaN if it was not logged.

    **Raises:** `InputError` for a metric that is a list of numbers.
    """
    value = row.get(recipe.monitor, float("nan"))
    if not isinstance(value, float | int):
        raise InputError(f"`monitor` (={recipe.monitor!r}) is a list of numbers: monitor a metric that is one number")
    return -value if recipe.monitor.endswith("loss") or recipe.monitor in lower_is_better else value


def check_finite(
    recipe: Recipe, *, failed: int, first_failed: int, counted: int, checkpoints: Checkpoints, steps_per_epoch: int
) -> None:
    """Stops a run whose loss is not finite.

    **Arguments:**

    - `failed`: number of steps of this epoch whose loss (or gradient) was not finite.
    - `first_failed`: the first of these steps, counted from 1 over the run.
    - `counted`: number of images in the other steps of this epoch.
    - `checkpoints`, `steps_per_epoch`: the run's checkpoints and number of steps per epoch, for the error message.

    **Raises:** `InputError` naming the step, the newest checkpoint before it, and possible remedies. Not raised if the
    recipe skips steps with a non-finite loss and the epoch also has finite steps.
    """
    if not failed or (recipe.on_nan == "skip" and counted):
        return
    epoch = (first_failed - 1) // steps_per_epoch + 1
    earlier = [step for step in checkpoints.steps() if step < first_failed]
    saved = f"the newest earlier checkpoint is from step {earlier[-1]:,}" if earlier else "no earlier checkpoint exists"
    skip = "" if recipe.on_nan == "skip" else ", or skip such steps with `--on-nan skip`"
    raise InputError(
        f"the loss is not finite at step {first_failed:,}, in epoch {epoch} ({saved}): try a "
        f"`learning_rate` below {recipe.learning_rate:g}, a `warmup_fraction` or a `clip_norm`; look for wrong "
        f"images{skip}"
    )
