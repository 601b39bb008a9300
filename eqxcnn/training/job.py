"""A job: a run with its data, setup and initial state, ready to start or to resume."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Int

from ..data import DataInfo, DecodeAhead, Prefetch, TrainOrder
from ..data.batches import StreamedBatch
from ..images import Preprocess
from ..metrics import Metric
from ..recipe import Recipe
from ..runtime.devices import Devices
from ..runtime.peers import Peers
from .parts import Parts
from .reading import Splits
from .setup import Setup
from .state import TrainState

__all__ = ["HostBatch", "Job", "count_steps"]

#: The part of a call's `k` batches that belongs to this process, in host memory. It holds only row numbers, or, if the
#: batches are streamed, the images, labels and row numbers.
HostBatch: TypeAlias = Int[np.ndarray, "k b"] | StreamedBatch


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    - `recipe`: the recipe with all defaults filled in, so that training it again repeats the run.
    - `steps`: number of steps; the last epoch may have fewer than the others.
    - `steps_per_call`: number of steps per compiled call.
    - `preprocess`: how images become the model's input.
    - `info`: the data's name, classes, channels and other properties.
    - `splits`: the images, and the rows that the run uses.
    - `order`: the order of the training rows in every epoch.
    - `reader`: decodes the images of the coming steps; `None` for images that are decoded already.
    - `setup`: the arguments of a step that stay fixed over the run.
    - `template`: the train state's structure, with a `jax.ShapeDtypeStruct` for each array.
    - `devices`: the devices that share each batch.
    - `peers`: the processes of the run.
    - `parts`: the parts of the run that are not built from the recipe.
    - `metrics`: metrics of validation and test besides loss and accuracy, by name.
    - `make_start`: makes the train state before the first step. Each call makes new arrays, since steps reuse the
      memory of the arrays they are given.
    """

    recipe: Recipe
    steps: int
    steps_per_call: int
    preprocess: Preprocess
    info: DataInfo
    splits: Splits
    order: TrainOrder
    reader: DecodeAhead | None
    setup: Setup
    template: TrainState
    make_start: Callable[[], TrainState]
    devices: Devices = field(default_factory=Devices)
    peers: Peers = field(default_factory=Peers)
    parts: Parts = field(default_factory=Parts)
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """The network's name in the zoo, or the qualified name of its class."""
        return self.recipe.model if self.parts.model is None else self.parts.name("model")

    @property
    def short_model_name(self) -> str:
        """The model's name without its module."""
        return self.model_name.rpartition(".")[2]

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The metrics for which lower values are better, by their names in the rows; losses are not included."""
        return frozenset(f"validation_{name}" for name, metric in self.metrics.items() if not metric.is_higher_better)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.preprocess.size

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training rows."""
        return len(self.order.rows) // self.recipe.batch_size

    @property
    def epochs(self) -> int:
        """Number of epochs, including a partial last one."""
        return -(-self.steps // self.steps_per_epoch)

    def steps_after(self, epochs: int) -> int:
        """Returns the number of steps in the first `epochs` epochs."""
        return min(epochs * self.steps_per_epoch, self.steps)

    def epochs_after(self, step: int) -> int:
        """Returns the number of epochs that are complete after `step` steps."""
        return self.epochs if step >= self.steps else step // self.steps_per_epoch

    def batches(self, epoch: int, first: int) -> Iterator[HostBatch]:
        """Yields the batches of an epoch, stacked for each call, starting at step `first` of the epoch. Batches after
        the run's last step are left out."""
        last = self.steps - epoch * self.steps_per_epoch
        return self.all_batches(epoch, slice(first, last))

    def all_batches(self, epoch: int, steps: slice = slice(None)) -> Iterator[HostBatch]:
        """Yields the batches of the given steps of an epoch, stacked for each call. The steps may lie beyond the run's
        end."""
        rows = self.order.batches(epoch)
        rows = rows[:, self.devices.own_part(rows.shape[1])]
        first, last, _ = steps.indices(len(rows))
        calls = np.split(rows[first:last], range(self.steps_per_call, last - first, self.steps_per_call))
        if self.setup.data is not None:
            return iter(calls)
        if self.reader is not None:
            return self.reader.batches(epoch, first * rows.shape[1], [call.shape for call in calls])
        return iter(Prefetch(self.splits.train.array, self.splits.train.labels, calls))

    def close(self) -> None:
        """Ends the threads or processes that decode images."""
        if self.reader is not None:
            self.reader.close()


def count_steps(batches: HostBatch) -> int:
    """Returns the number of steps in the batches of one call."""
    return jax.tree.leaves(batches)[0].shape[0]
