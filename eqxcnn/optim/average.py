"""Averages of the weights over the steps of a run, which often score better than the last ones."""

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .lookahead import Weights


@dataclass(frozen=True)
class Average:
    """A copy of model and state that follows them; the run goes on as it would without.

    - `kind`: `ema`, a moving average that keeps `decay` of itself at each step, and less of it at first,
      `(1 + step) / (10 + step)` (as TensorFlow's `ExponentialMovingAverage` does), so that the random start is
      forgotten; running statistics of BatchNorm are averaged like weights. `swa`, the plain mean of the weights at the
      end of each epoch from step `start` on (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1), whose running
      statistics are found anew in the end, by `recompute_batch_stats`.
    - `decay`: of `ema`.
    - `start`: how many steps there are before the first mean.
    - `every`: steps of an epoch.
    """

    kind: Literal["ema", "swa"]
    decay: float
    start: int
    every: int

    def __call__(self, average: Weights, weights: Weights, step: Int[Array, ""]) -> Weights:
        """The average after step `step`, counted from 1."""
        if self.kind == "ema":
            new = 1 - jnp.minimum(self.decay, (1 + step) / (10 + step))
        else:
            first = max(-(-self.start // self.every), 1)
            epoch = step // self.every
            # Until the first epoch that counts is over, the average is where the weights are.
            new = jnp.where(step % self.every == 0, 1 / (1 + epoch - first), 0.0)
            new = jnp.where(epoch < first, 1.0, new)

        def moved(average: Float[Array, "..."], now: Float[Array, "..."]) -> Float[Array, "..."]:
            return average + new.astype(average.dtype) * (now - average)

        return jax.tree.map(moved, average, eqx.filter(weights, eqx.is_inexact_array))
