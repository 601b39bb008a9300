"""From a recipe to all that a run needs: data decoded, settings resolved, model and optimiser made."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from .. import augment, manual, registry, zoo
from ..data import DataInfo, DataSet, Prefetch, Split, epoch_order, hold_out, open_source, train_batches
from ..errors import InputError
from ..types import Classifier, Key
from .compile import compiled_once
from .optim import make_optimizer
from .recipe import Recipe
from .step import Setup, TrainState, ValueAndGrad, autodiff

#: Rows, or images and labels, of the `k` steps of a call, on their way to the device.
HostBatch: TypeAlias = Int[np.ndarray, "k b"] | tuple[UInt8[np.ndarray, "k b h w c"], Int[np.ndarray, "k b"]]


@dataclass(frozen=True)
class Job:
    """A run that can start.

    - `recipe`: with every `None` resolved, enough to repeat the run.
    - `epochs`, `steps_per_call`, `image_size`: the resolved recipe's.
    - `info`, `train`, `test`: the data.
    - `train_rows`: the rows of `train` that are learnt from.
    - `validation`, `validation_rows`: the split that progress is followed on, and which of its rows.
    - `setup`: what stays fixed over the run.
    - `start`: the train state before the first step.
    """

    recipe: Recipe
    epochs: int
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

    def batches(self, epoch: int, first: int) -> Iterator[HostBatch]:
        """What remains of an epoch from its step `first` on, the batches of all steps of a call stacked."""
        order = epoch_order(len(self.train_rows), self.recipe.seed, epoch, shuffle=self.recipe.shuffle)
        rows = self.train_rows[train_batches(order, self.recipe.batch_size)].astype(np.int32)[first:]
        calls = np.split(rows, range(self.steps_per_call, len(rows), self.steps_per_call))
        return iter(calls if self.setup.data is not None else Prefetch(self.train.images, self.train.labels, calls))


def prepare(recipe: Recipe) -> Job:
    """Opens and decodes the data, fills in what the recipe leaves to them, and builds model and optimiser.

    **Raises:** `InputError` for data that cannot be read or do not fit the recipe.
    """
    transform = augment.build(recipe.augment)
    source = open_source(recipe.data)
    image_size = image_size_for(recipe, source.info)
    _check_normalisation(recipe, source.info)
    train, test = (_decoded(source, split, recipe, image_size) for split in ("train", "test"))
    train_rows, validation_rows = _hold_out(train.labels, recipe)
    validation = train
    if recipe.validation == "test":
        validation, validation_rows = test, np.arange(len(test.labels), dtype=np.int32)
    mean, std = _normalisation(recipe, train.images, train_rows)
    # Seconds on a laptop: a thousand digits are seen twenty times, MNIST six.
    epochs = recipe.epochs or int(np.clip(round(320_000 / len(train_rows)), 5, 20))
    by_default = 1 if jax.default_backend() == "cpu" else 100
    # A loop over several steps would compile them.
    steps_per_call = (recipe.steps_per_call or by_default) if recipe.jit else 1
    optimizer = make_optimizer(recipe, epochs * (len(train_rows) // recipe.batch_size))
    init_key, step_key = jax.random.split(jax.random.key(recipe.seed))

    def begin(key: Key) -> TrainState:
        classes, channels = len(source.info.class_names), source.info.channels
        model, state = zoo.create_model(
            recipe.model, num_classes=classes, in_channels=channels, image_size=image_size, key=key
        )
        return TrainState.start(model, state, optimizer)

    start = compiled_once(begin)(init_key)
    setup = Setup(
        value_and_grad=_value_and_grad(recipe, start.model),
        optimizer=optimizer,
        augment=transform,
        key=step_key,
        mean=jnp.asarray(mean, jnp.float32),
        std=jnp.asarray(std, jnp.float32),
        data=_on_device(recipe, train),
    )
    resolved = replace(
        recipe, data=source.info.source, epochs=epochs, steps_per_call=steps_per_call, image_size=image_size,
        mean=mean, std=std, train_images=recipe.train_images or len(train.labels),
    )  # fmt: skip
    return Job(
        resolved, epochs, steps_per_call, image_size, source.info, train, test, train_rows, validation,
        validation_rows, setup, start,
    )  # fmt: skip


def image_size_for(recipe: Recipe, info: DataInfo) -> tuple[int, int]:
    """The recipe's, else the data's, else the model's own: where sizes vary, or are below what the model can take."""
    model = registry.variant(recipe.model)
    if recipe.image_size is not None:
        return recipe.image_size
    fits = info.image_size is not None and min(info.image_size) >= model.smallest
    return info.image_size if fits and info.image_size else model.input[:2]


def _check_normalisation(recipe: Recipe, info: DataInfo) -> None:
    for name in ("mean", "std"):
        value = getattr(recipe, name)
        if value is not None and len(value) != info.channels:
            raise InputError(
                f"`{name}` (={list(value)}) must have one number a channel, and the images have {info.channels}"
            )


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


def _normalisation(
    recipe: Recipe, images: UInt8[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The recipe's mean and deviation, or those measured on the training rows."""
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    mean, std = pixel_statistics(images, rows)
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def pixel_statistics(
    images: UInt8[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"], at_once: int = 1000
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean and deviation a channel of these rows' pixels on the scale [0, 1], summed exactly in whole numbers."""
    total, squares = (np.zeros(images.shape[-1], np.int64) for _ in range(2))
    for start in range(0, len(rows), at_once):
        chunk = images[rows[start : start + at_once]].astype(np.uint16)
        total += chunk.sum((0, 1, 2), dtype=np.int64)
        squares += np.square(chunk).sum((0, 1, 2), dtype=np.int64)
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    # A channel of one colour has no deviation to divide by; 1 leaves it as it is.
    return mean / 255, np.where(std == 0, 255, std) / 255


def _value_and_grad(recipe: Recipe, model: Classifier) -> ValueAndGrad:
    """How the step gets its gradients."""
    if recipe.gradients == "autodiff":
        return autodiff(recipe.label_smoothing)
    if not isinstance(model, manual.HandDerived):
        raise InputError(f"`gradients` (='by_hand'): `{recipe.model}` has no backward pass of its own, `scratch` has")
    return cast(ValueAndGrad, partial(manual.value_and_grad, label_smoothing=recipe.label_smoothing))


def _on_device(recipe: Recipe, train: Split) -> tuple[jax.Array, jax.Array] | None:
    """The training images and labels as device arrays, or nothing when they are larger than the budget."""
    if train.images.nbytes > recipe.device_budget * 2**30:
        return None
    return jnp.asarray(train.images), jnp.asarray(train.labels)
