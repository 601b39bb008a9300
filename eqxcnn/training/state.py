"""The state of a run: everything that a step changes and a checkpoint holds."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..optim.averages import Weights, copy_weights
from ..optim.optimizers import Optimizer
from ..types import ModelState, Network

__all__ = ["Sums", "TrainState"]


class Sums(eqx.Module):
    """An epoch's sums over examples, kept on the device and divided when they are read.

    - `loss`, `correct`, `count`: summed loss, number of correct predictions, number of images.
    - `failed`: number of steps whose loss (or gradient) was not finite.
    - `first_failed`: the number of the first failed step, counted from 1.
    """

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    count: Int[Array, ""]
    failed: Int[Array, ""]
    first_failed: Int[Array, ""]

    @staticmethod
    def zero() -> "Sums":
        """Returns the sums at the start of an epoch."""
        return Sums(jnp.zeros((), jnp.float32), *(jnp.zeros((), jnp.int32) for _ in range(4)))

    def add(
        self, loss: Float[Array, ""], correct: Int[Array, ""], count: int, step: Int[Array, ""], is_finite: Array
    ) -> "Sums":
        """Returns the sums after a step.

        **Arguments:**

        - `loss`: mean loss of the batch.
        - `correct`: number of correct predictions in the batch.
        - `count`: number of images in the batch.
        - `step`: the step's number, counted from 1.
        - `is_finite`: whether the loss is finite, and the gradients too if they are checked.
        """
        is_first = ~is_finite & (self.failed == 0)
        return Sums(
            # The casts keep the dtypes of the sums if JAX computes in 64 bits.
            loss=self.loss + (loss * count).astype(self.loss.dtype),
            correct=self.correct + correct.astype(self.correct.dtype),
            count=self.count + count,
            failed=self.failed + (~is_finite).astype(self.failed.dtype),
            first_failed=jnp.where(is_first, step, self.first_failed),
        )

    def means(self) -> tuple[float, float]:
        """Returns mean loss and accuracy, over all seeds if the sums are stacked over seeds; waits for the device."""
        loss, correct, count = (float(np.sum(each)) for each in (self.loss, self.correct, self.count))
        return loss / max(count, 1), correct / max(count, 1)


class TrainState(eqx.Module):
    """Everything that a step changes.

    - `model`, `state`: the network, and its state such as BatchNorm's running statistics.
    - `opt_state`: the optimizer's state.
    - `step`: number of finished steps.
    - `sums`: metrics of the current epoch.
    - `slow`: Lookahead's slow weights, if the recipe uses Lookahead.
    - `average`: the averaged weights, if the recipe keeps an average.
    """

    model: Network
    state: ModelState
    opt_state: PyTree
    step: Int[Array, ""]
    sums: Sums
    slow: Weights | None
    average: Weights | None = None

    @staticmethod
    def start(
        model: Network,
        state: ModelState,
        optimizer: Optimizer,
        use_lookahead: bool = False,
        use_average: bool = False,
    ) -> "TrainState":
        """Returns the state before the first step."""
        opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        slow = copy_weights((model, state)) if use_lookahead else None
        average = copy_weights((model, state)) if use_average else None
        return TrainState(model, state, opt_state, jnp.zeros((), jnp.int32), Sums.zero(), slow, average)

    @property
    def averaged(self) -> tuple[Network, ModelState]:
        """Model and state with the averaged weights, or with the current weights if there is no average."""
        rest = eqx.filter((self.model, self.state), eqx.is_inexact_array, inverse=True)
        return (self.model, self.state) if self.average is None else eqx.combine(self.average, rest)
