"""Lookahead: a slow copy of the weights that the fast ones are called back to (Zhang et al. 2019, arXiv:1907.08610)."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

#: A model and its state.
Weights: TypeAlias = tuple[PyTree, eqx.nn.State]


@dataclass(frozen=True)
class Lookahead:
    """Every few steps the slow copy moves towards the weights, and the weights go back to it.

    The slow copy keeps `decay**every (step / steps)**3` of itself: at first it goes wherever the weights are, later it
    follows them slowly. At the last step the weights become the slow copy, whatever the step's number (Jordan 2024,
    section 3.4). The running statistics of BatchNorm are weights like others here; what the optimizer keeps is not.

    - `every`: steps between two calls back.
    - `decay`: what the slow copy keeps of itself a step, at the end.
    - `steps`: of the run.
    """

    every: int
    decay: float
    steps: int

    @staticmethod
    def start(weights: Weights) -> Weights:
        """The slow copy before the first step, in memory of its own."""
        return jax.tree.map(jnp.copy, eqx.filter(weights, eqx.is_inexact_array))

    def __call__(self, slow: Weights, weights: Weights, step: Int[Array, ""]) -> tuple[Weights, Weights]:
        """The slow copy and the weights after step `step`, counted from 1."""
        kept = self.decay**self.every * (step / self.steps) ** 3
        is_due = step % self.every == 0
        is_last = step == self.steps

        def moved(slow: Float[Array, "..."], fast: Float[Array, "..."]) -> Float[Array, "..."]:
            return jnp.where(is_due, slow + (1 - kept).astype(slow.dtype) * (fast - slow), slow)

        def called_back(slow: Float[Array, "..."], fast: Float[Array, "..."]) -> Float[Array, "..."]:
            return jnp.where(is_due | is_last, slow, fast)

        fast, rest = eqx.partition(weights, eqx.is_inexact_array)
        slow = jax.tree.map(moved, slow, fast)
        after: Any = eqx.combine(jax.tree.map(called_back, slow, fast), rest)
        return slow, after
