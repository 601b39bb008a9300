"""From a recipe to all that a run needs: data decoded, settings resolved, model and optimizer made."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .. import augment, registry
from ..data import (
    DataInfo,
    DataSet,
    Prefetch,
    Split,
    balanced_order,
    epoch_order,
    hold_out,
    open_source,
    train_batches,
)
from ..data.batches import StreamedBatch
from ..errors import InputError
from ..optim.average import Average
from ..optim.lookahead import Lookahead
from ..optim.optimizers import make_optimizer
from ..optim.schedules import schedule_shape
from ..recipe.recipe import Recipe
from ..runtime.compile import jit_once
from .normalization import check_normalization, normalization
from .objective import class_weights, mix, value_and_grad
from .start import init_train_state
from .step import Setup, TrainState
from .warm_start import warm_start

#: Rows, or images, labels and rows, of the `k` steps of a call, on their way to the device.
HostBatch: TypeAlias = Int[np.ndarray, "k b"] | StreamedBatch


@dataclass(frozen=True)
class Job:
    """A run that can start.

    - `recipe`: with every `None` resolved, enough to repeat the run.
    - `steps`: how many there are; the last epoch may have fewer of them than the others.
    - `steps_per_call`, `image_size`: the resolved recipe's.
    - `info`, `train`, `test`: the data.
    - `train_rows`: the rows of `train` that are learnt from.
    - `validation`, `validation_rows`: the split that progress is followed on, and which of its rows.
    - `setup`: what stays fixed over the run.
    - `start`: the train state before the first step.
    """

    recipe: Recipe
    steps: int
    steps_per_call: int
    image_size: tuple[int, int]
    info: DataInfo
    train: Split
    test: Split
    train_rows: Int[np.ndarray, " n"]
    validation: Split
    validation_rows: Int[np.ndarray, " v"]
    setup: Setup
    start: TrainState

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training rows."""
        return len(self.train_rows) // self.recipe.batch_size

    @property
    def epochs(self) -> int:
        """Passes over the training rows, one that is cut short included."""
        return -(-self.steps // self.steps_per_epoch)

    def steps_after(self, epochs: int) -> int:
        """How many steps are over after that many epochs."""
        return min(epochs * self.steps_per_epoch, self.steps)

    def epochs_after(self, step: int) -> int:
        """How many epochs are over after that many steps."""
        return self.epochs if step >= self.steps else step // self.steps_per_epoch

    def batches(self, epoch: int, first: int) -> Iterator[HostBatch]:
        """What remains of an epoch from its step `first` on, the batches of all steps of a call stacked."""
        last = self.steps - epoch * self.steps_per_epoch
        return self.all_batches(epoch, slice(first, last))

    def all_batches(self, epoch: int, steps: slice = slice(None)) -> Iterator[HostBatch]:
        """The same for any epoch, whether or not the run comes to it, and for these steps of it."""
        recipe, count = self.recipe, len(self.train_rows)
        if recipe.sampling == "balanced":
            order = balanced_order(self.train.labels[self.train_rows], recipe.seed, epoch)
        else:
            order = epoch_order(count, recipe.seed, epoch, shuffle=recipe.shuffle)
        rows = self.train_rows[train_batches(order, self.recipe.batch_size)].astype(np.int32)[steps]
        calls = np.split(rows, range(self.steps_per_call, len(rows), self.steps_per_call))
        return iter(calls if self.setup.data is not None else Prefetch(self.train.images, self.train.labels, calls))


def prepare(recipe: Recipe, *, starts: bool = True) -> Job:
    """Opens and decodes the data, fills in what the recipe leaves to them, and builds model and optimizer.

    **Arguments:**

    - `starts`: whether the run begins; one that goes on needs no weights to start from.

    **Raises:** `InputError` for data that cannot be read or do not fit the recipe.
    """
    transform = augment.build(recipe.augment)
    source = open_source(recipe.data)
    image_size = image_size_for(recipe, source.info)
    check_normalization(recipe, source.info)
    warm = warm_start(recipe, source.info, image_size) if starts else None
    train, test = (_decoded(source, split, recipe, image_size) for split in ("train", "test"))
    train_rows, validation_rows = _hold_out(train.labels, recipe)
    validation = train
    if recipe.validation == "test":
        validation, validation_rows = test, np.arange(len(test.labels), dtype=np.int32)
    mean, std = normalization(recipe, warm, train.images, train_rows)
    moments = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    # Seconds on a laptop: a thousand digits are seen twenty times, MNIST six.
    epochs = recipe.epochs or int(np.clip(round(320_000 / len(train_rows)), 5, 20))
    by_default = 1 if jax.default_backend() == "cpu" else 100
    # A loop over several steps would compile them.
    steps_per_call = (recipe.steps_per_call or by_default) if recipe.jit else 1
    steps_per_epoch = len(train_rows) // recipe.batch_size
    # What binary fractions add to a whole number is no step of its own.
    steps = max(math.ceil(round(epochs * steps_per_epoch, 6)), 1)
    optimizer = make_optimizer(recipe, steps, steps_per_epoch)
    lookahead = Lookahead(recipe.lookahead_every, recipe.lookahead_decay, steps) if recipe.lookahead_every else None
    average = _average(recipe, steps, steps_per_epoch)
    weights = class_weights(recipe, train.labels[train_rows], source.info)
    first = train.images[_init_rows(recipe, train_rows)]
    begin = partial(init_train_state, recipe, source.info, image_size, optimizer, moments)
    given = {} if warm is None else warm.tensors
    start, step_key = jit_once(begin)(first, given, jax.random.key(recipe.seed))
    setup = Setup(
        value_and_grad=value_and_grad(recipe, start.model, weights),
        optimizer=optimizer,
        augment=transform,
        lookahead=lookahead,
        steps_per_epoch=steps_per_epoch,
        key=step_key,
        mean=moments[0],
        std=moments[1],
        data=_on_device(recipe, train),
        mix=mix(recipe),
        average=average,
        skips_nan=recipe.on_nan == "skip",
    )
    resolved = replace(
        recipe, data=source.info.source, epochs=epochs, steps_per_call=steps_per_call, image_size=image_size,
        mean=mean, std=std, class_weights=weights, train_images=recipe.train_images or len(train.labels),
        **schedule_shape(recipe),
    )  # fmt: skip
    return Job(
        resolved, steps, steps_per_call, image_size, source.info, train, test, train_rows, validation,
        validation_rows, setup, start,
    )  # fmt: skip


def image_size_for(recipe: Recipe, info: DataInfo) -> tuple[int, int]:
    """The recipe's, else the data's, else the model's own: where sizes vary, or are below what the model can take."""
    model = registry.variant(recipe.model)
    if recipe.image_size is not None:
        return recipe.image_size
    fits = info.image_size is not None and min(info.image_size) >= model.smallest
    return info.image_size if fits and info.image_size else model.input[:2]


def _decoded(source: DataSet, split: str, recipe: Recipe, image_size: tuple[int, int]) -> Split:
    return source.decode(
        "train" if split == "train" else "test", image_size=image_size, on_bad_image=recipe.on_bad_image
    )


def _hold_out(labels: Int[np.ndarray, " n"], recipe: Recipe) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " v"]]:
    """The rows to learn from, at least a batch of them, and those to validate on."""
    most = recipe.train_images or len(labels)
    if most > len(labels):
        raise InputError(f"`train_images` (={most}) is more than the {len(labels):,} that there are: give fewer")
    kept, held = np.arange(most, dtype=np.int32), np.zeros(0, np.int32)
    if isinstance(recipe.validation, float) and recipe.validation:
        kept, held = hold_out(labels[:most], recipe.validation, recipe.seed)
    if len(kept) < recipe.batch_size:
        raise InputError(
            f"`batch_size` (={recipe.batch_size}) is more than the {len(kept):,} training images: give a smaller one"
        )
    return kept, held


def _init_rows(recipe: Recipe, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " i"]:
    """Those of the training rows that weights are set from."""
    if recipe.init_images > len(rows):
        raise InputError(
            f"`init_images` (={recipe.init_images}) is more than the {len(rows):,} training images: give fewer"
        )
    return rows[: recipe.init_images]


def _average(recipe: Recipe, steps: int, steps_per_epoch: int) -> Average | None:
    """The average of the weights that the recipe keeps, if any."""
    if recipe.average == "none":
        return None
    start = math.ceil(round(recipe.average_start * steps, 6))
    if recipe.average == "swa" and steps // steps_per_epoch * steps_per_epoch < max(start, 1):
        raise InputError(
            f"`average_start` (={recipe.average_start}) leaves no end of an epoch to average among {steps:,} steps: "
            "give less, or more `epochs`"
        )
    return Average(recipe.average, recipe.average_decay, start, steps_per_epoch)


def _on_device(recipe: Recipe, train: Split) -> tuple[jax.Array, jax.Array] | None:
    """The training images and labels as device arrays, or nothing when they are larger than the budget."""
    if train.images.nbytes > recipe.device_budget * 2**30:
        return None
    return jnp.asarray(train.images), jnp.asarray(train.labels)
