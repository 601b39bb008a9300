"""Copies of the weights that are updated during training: Lookahead's slow weights, and averages for evaluation."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..types import ModelState

__all__ = ["Lookahead", "WeightAverage", "Weights", "copy_weights"]

#: A model and its state, or only their floating-point arrays.
Weights: TypeAlias = tuple[PyTree, ModelState]


def copy_weights(weights: Weights) -> Weights:
    """Copies the floating-point arrays of a model and its state; all other leaves become `None`."""
    return jax.tree.map(jnp.copy, eqx.filter(weights, eqx.is_inexact_array))


@dataclass(frozen=True)
class Lookahead:
    """Lookahead (Zhang et al. 2019, arXiv:1907.08610) with the schedule of Jordan 2024, section 3.4.

    Every `every` steps the slow weights move toward the current weights, and the current weights are reset to the slow
    weights. In each move the slow weights keep a fraction `decay**every * (step / steps)**3` of their values: they
    follow freely at first and slowly at the end. After the last step the current weights are reset, even if no reset is
    due. BatchNorm's running statistics are treated like weights; the optimizer's state is left alone.

    - `every`: steps between two resets.
    - `decay`: fraction that the slow weights keep per step at the end of the run.
    - `steps`: number of steps of the run.
    """

    every: int
    decay: float
    steps: int

    def __call__(self, slow: Weights, weights: Weights, step: Int[Array, ""]) -> tuple[Weights, Weights]:
        """Returns the slow and the current weights after step `step`, counted from 1."""
        kept = self.decay**self.every * (step / self.steps) ** 3
        is_due = step % self.every == 0
        is_last = step == self.steps

        def move(slow: Float[Array, "..."], fast: Float[Array, "..."]) -> Float[Array, "..."]:
            return jnp.where(is_due, slow + (1 - kept).astype(slow.dtype) * (fast - slow), slow)

        def reset(slow: Float[Array, "..."], fast: Float[Array, "..."]) -> Float[Array, "..."]:
            return jnp.where(is_due | is_last, slow, fast)

        fast, rest = eqx.partition(weights, eqx.is_inexact_array)
        slow = jax.tree.map(move, slow, fast)
        after: Any = eqx.combine(jax.tree.map(reset, slow, fast), rest)
        return slow, after


@dataclass(frozen=True)
class WeightAverage:
    """An average of model and state, evaluated and saved instead of the last weights; training does not depend on it.

    - `kind`: `ema` is a moving average; at each step, the weight of the old average is the smaller of `decay` and
      `(1 + step) / (10 + step)`, so that the initial weights soon lose their influence (as in TensorFlow's
      `ExponentialMovingAverage`). BatchNorm's running statistics are averaged like weights. `swa` is the mean of the
      weights at the end of each epoch from step `start` on (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1); the
      running statistics for this mean are recomputed at the end of the run.
    - `decay`: for `ema`, the largest weight of the old average in a step.
    - `start`: a step; `swa` includes the weights at the end of each epoch that ends at this step or later.
    - `every`: steps per epoch.
    """

    kind: Literal["ema", "swa"]
    decay: float
    start: int
    every: int

    def __call__(self, average: Weights, weights: Weights, step: Int[Array, ""]) -> Weights:
        """Returns the average after step `step`, counted from 1."""
        if self.kind == "ema":
            new = 1 - jnp.minimum(self.decay, (1 + step) / (10 + step))
        else:
            first = max(-(-self.start // self.every), 1)
            epoch = step // self.every
            # Until the end of the first epoch that the average includes, the average equals the current weights.
            new = jnp.where(step % self.every == 0, 1 / (1 + epoch - first), 0.0)
            new = jnp.where(epoch < first, 1.0, new)

        def move(average: Float[Array, "..."], now: Float[Array, "..."]) -> Float[Array, "..."]:
            return average + new.astype(average.dtype) * (now - average)

        return jax.tree.map(move, average, eqx.filter(weights, eqx.is_inexact_array))
