"""Callbacks: objects that watch a run and may ask it to stop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError
from ..recipe import Recipe
from ..types import ModelState, Network
from .evaluate import Scores
from .state import TrainState

__all__ = ["Callback", "EpochFunction", "RunView", "as_callbacks", "wants_steps"]


@dataclass(frozen=True)
class RunView:
    """The view of a run that its callbacks receive.

    - `recipe`: the recipe, with all defaults filled in.
    - `folder`: the run's folder.
    - `epoch`: number of finished epochs.
    - `step`: number of finished steps.
    - `rows`: the rows of `metrics.jsonl` so far: one per epoch, and at the end one for the test.
    - `test`: the scores on the test split; `None` before the end.
    """

    recipe: Recipe
    folder: Path
    epoch: int
    step: int
    rows: Sequence[Mapping[str, Any]]
    _train: TrainState
    _requests: list[str] = field(default_factory=list)
    test: Scores | None = None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The newest row of metrics; empty before the end of the first epoch."""
        return self.rows[-1] if self.rows else {}

    @property
    def model(self) -> Network:
        """A copy of the network with its current weights, or with averaged weights if the recipe keeps an average."""
        return self._copy()[0]

    @property
    def state(self) -> ModelState:
        """A copy of the network's state."""
        return self._copy()[1]

    @property
    def loss(self) -> float:
        """Mean training loss of the epoch so far; waits for the steps in flight."""
        return self._train.sums.means()[0]

    def request_stop(self, reason: str) -> None:
        """Asks the run to stop after this epoch, like early stopping; the weights are then tested and saved.

        **Arguments:**

        - `reason`: a clause to print, such as "the loss has not fallen".
        """
        self._requests.append(reason)

    @property
    def stop_reason(self) -> str | None:
        """The reason given by the first callback that asked the run to stop; `None` if no callback did."""
        return self._requests[0] if self._requests else None

    def _copy(self) -> tuple[Network, ModelState]:
        # A copy, because the next step reuses the memory of these arrays.
        arrays = [leaf for leaf in jax.tree.leaves(self._train.averaged) if isinstance(leaf, jax.Array)]
        if any(array.is_deleted() for array in arrays):
            raise InputError(
                "a `RunView` has no weights after its callback has returned: read `model` and `state` inside it"
            )
        return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, self._train.averaged)


class Callback:
    """Watches a run; subclasses override the methods they need.

    A callback must not rely on values that it stored before an interruption. A resumed run calls `on_start` again, with
    the rows logged so far.
    """

    def on_start(self, run: RunView) -> None:
        """Called before the first step of a new or resumed run."""

    def on_step(self, run: RunView) -> None:
        """Called after each compiled call, which runs one or more steps. Costs time only if overridden."""

    def on_epoch(self, run: RunView) -> None:
        """Called after each epoch, once its row is logged."""

    def on_checkpoint(self, run: RunView) -> None:
        """Called after each checkpoint."""

    def on_test(self, run: RunView) -> None:
        """Called at the end, after the test metrics are logged and before the classifier is saved."""

    def on_end(self, run: RunView) -> None:
        """Called at the end, once the classifier is saved."""


class EpochFunction(Callback):
    """Calls a function after each epoch."""

    def __init__(self, function: Callable[[RunView], object]) -> None:
        self._function = function

    def on_epoch(self, run: RunView) -> None:
        """Calls the function."""
        self._function(run)


def as_callbacks(callbacks: Sequence[Callback | Callable[[RunView], object]]) -> list[Callback]:
    """Returns the callbacks, with each plain function wrapped in a callback that calls it after each epoch."""
    return [each if isinstance(each, Callback) else EpochFunction(each) for each in callbacks]


def wants_steps(callback: Callback) -> bool:
    """Returns whether a callback overrides `on_step`."""
    return type(callback).on_step is not Callback.on_step
