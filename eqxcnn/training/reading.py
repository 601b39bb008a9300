"""Opens the data of a recipe, and reads the images. Images are decoded once, or each time they are read."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..augment import ContextAugment, RandomResizedCrop, Stage, compose
from ..data import DataSet, DecodeAhead, EncodedImages, Split, TrainOrder, hold_out, open_source
from ..data.cache import cache_root
from ..errors import InputError
from ..images import Preprocess
from ..images.crops import RandomCrop
from ..recipe import Recipe
from ..runtime.devices import Devices

__all__ = [
    "Decoding",
    "Splits",
    "build_augment",
    "choose_decoding",
    "make_order",
    "make_reader",
    "open_data",
    "read_split",
    "read_splits",
]

Decoding: TypeAlias = Literal["once", "stream"]


@dataclass(frozen=True)
class Splits:
    """The images of a run, and the rows that it uses.

    - `train`, `test`: the two splits.
    - `train_rows`: the rows of `train` to train on.
    - `validation`, `validation_rows`: the split on which progress is measured, and the rows of this split to use.
    """

    train: Split
    test: Split
    train_rows: Int[np.ndarray, " n"]
    validation: Split
    validation_rows: Int[np.ndarray, " v"]


def open_data(recipe: Recipe, own: DataSet | None = None) -> DataSet:
    """Opens the data that a recipe names; returns `own` if it is given.

    If the images will be streamed, or may be streamed, the data set is opened without reading all of it; see
    `DataInfo.is_sampled`.

    **Raises:** `InputError` for data that cannot be read, or for `own` with a recipe that chooses columns or splits.
    """
    choices = {name: getattr(recipe, name) for name in ("image_column", "label_column", "test_split")}
    if own is None:
        quick = {"once": False, "stream": True, "auto": None}[recipe.decode]
        return open_source(recipe.data, **choices, quick=quick, streaming=recipe.data_streaming)
    if given := [f"`{name}`" for name, choice in choices.items() if choice is not None]:
        raise InputError(
            f"the recipe's {' and '.join(given)} cannot be applied to `data` that you pass: use the arguments of "
            "`eqxcnn.data.from_dataset` instead"
        )
    return own


def choose_decoding(
    recipe: Recipe, source: DataSet, preprocess: Preprocess, can_reopen: bool = True
) -> tuple[DataSet, Decoding]:
    """Returns the data set, and whether its images are decoded once or each time they are read.

    With `decode: auto`, images are streamed if the decoded images would exceed `disk_budget`. They are also streamed if
    the decoded images are not in the cache yet and would exceed the free space.

    **Arguments:**

    - `can_reopen`: whether the recipe's data can be opened again. The data are opened again to compute the fingerprint
        for the chosen decoding: from all images if they are decoded once, from a sample if they are streamed.
    """
    decode = "stream" if recipe.data_streaming else recipe.decode
    if decode == "auto":
        size = sum(source.info.splits.values()) * prod(preprocess.size) * preprocess.channels
        fits = size <= recipe.disk_budget * 2**30
        if fits and size > _free_bytes(cache_root()):
            # The disk may be full because the cache already contains the decoded images.
            fits = _are_decoded(recipe, open_data(recipe.replace(decode="once")) if can_reopen else source, preprocess)
        decode = "once" if fits or recipe.cache_size is not None else "stream"
    if source.info.is_sampled != (decode == "stream") and can_reopen:
        # A resumed run opens the data with the resolved `decode`, and must compute the same fingerprint.
        source = open_data(recipe.replace(decode=decode))
    return source, decode


def _are_decoded(recipe: Recipe, source: DataSet, preprocess: Preprocess) -> bool:
    """Returns whether both splits are in memory or in the cache."""
    parts: tuple[Literal["train", "test"], ...] = ("train", "test")
    found = (source.find_decoded(part, preprocess=preprocess, on_bad_image=recipe.on_bad_image) for part in parts)
    return all(split is not None for split in found)


def read_split(
    recipe: Recipe, source: DataSet, split: Literal["train", "test"], preprocess: Preprocess, decode: Decoding
) -> Split:
    """Reads the images of a split.

    **Raises:** `InputError` for images that cannot be decoded.
    """
    if decode == "stream":
        return source.stream(split, preprocess=preprocess, on_bad_image=recipe.on_bad_image)
    return source.decode(split, preprocess=preprocess, on_bad_image=recipe.on_bad_image)


def read_splits(recipe: Recipe, source: DataSet, preprocess: Preprocess, decode: Decoding) -> Splits:
    """Reads both splits, and chooses the rows for training and the rows for measuring progress.

    **Raises:** `InputError` for images that cannot be decoded, and for too few rows.
    """

    def read(split: Literal["train", "test"], how: Preprocess = preprocess) -> Split:
        return read_split(recipe, source, split, how, decode)

    if recipe.cache_size is None:
        train = held = read("train")
    else:
        # Random crops are taken from whole images of size `cache_size`. Validation images have the size of the model's
        # input.
        train = read("train", replace(preprocess, size=recipe.cache_size, crop_fraction=1.0))
        held = read("train") if isinstance(recipe.validation, float) and recipe.validation else train
    test = read("test")
    train_rows, validation_rows = _split_rows(train.labels, recipe)
    if recipe.validation == "test":
        held, validation_rows = test, np.arange(len(test.labels), dtype=np.int32)
    return Splits(train, test, train_rows, held, validation_rows)


def _free_bytes(folder: Path) -> int:
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    return shutil.disk_usage(existing).free


def _split_rows(labels: Int[np.ndarray, " n"], recipe: Recipe) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " v"]]:
    """Returns the rows to train on (at least one batch), and the held-out rows."""
    count = recipe.train_images or len(labels)
    if count > len(labels):
        raise InputError(f"`train_images` (={count}) is more than the {len(labels):,} training images: give fewer")
    kept, held = np.arange(count, dtype=np.int32), np.zeros(0, np.int32)
    if isinstance(recipe.validation, float) and recipe.validation:
        kept, held = hold_out(labels[:count], recipe.validation, recipe.seed)
    if len(kept) < recipe.batch_size:
        raise InputError(
            f"`batch_size` (={recipe.batch_size}) is more than the {len(kept):,} training images: give a smaller one"
        )
    return kept, held


def build_augment(
    recipe: Recipe, stages: Sequence[Stage], shape: tuple[int, int, int], decode: Decoding
) -> tuple[RandomResizedCrop | None, ContextAugment | None]:
    """Composes a run's augmentations.

    **Arguments:**

    - `stages`: the augmentations, in order.
    - `shape`: height, width and channels of the model's input.

    **Returns:** a pair: the random crop that the decoder of streamed images takes from the original pixels, or `None`;
        and a function that applies all other augmentations on the device, or `None`.

    **Raises:** `InputError` for augmentations that need images of another shape.
    """
    crop = next((stage for stage in stages if isinstance(stage, RandomResizedCrop)), None)
    height_and_width = shape[:2]
    if crop is not None and recipe.cache_size is not None:
        height_and_width, resized = recipe.cache_size, replace(crop, size=crop.size or shape[:2])
        stages = [resized if stage is crop else stage for stage in stages]
    if decode == "stream" and crop is not None:
        height_and_width, stages = crop.size or height_and_width, [stage for stage in stages if stage is not crop]
    if not stages:
        return (crop if decode == "stream" else None), None
    transform = compose(stages)
    image = jax.ShapeDtypeStruct((*height_and_width, shape[2]), jnp.float32)
    jax.eval_shape(transform, image, jax.random.key(0))
    return (crop if decode == "stream" else None), transform


def make_order(recipe: Recipe, splits: Splits) -> TrainOrder:
    """Returns the order of the training rows in every epoch."""
    labels = splits.train.labels[splits.train_rows] if recipe.sampling == "balanced" else None
    buffer = recipe.shuffle_buffer if recipe.data_streaming else None
    return TrainOrder(splits.train_rows, labels, recipe.batch_size, recipe.seed, recipe.shuffle, buffer)


def make_reader(
    recipe: Recipe, train: Split, order: TrainOrder, crop: RandomResizedCrop | None, devices: Devices
) -> DecodeAhead | None:
    """Returns the decoder for this process's part of the steps, or `None` for images that are decoded already."""
    if not isinstance(train.images, EncodedImages):
        return None
    images, draw = train.images, None
    if crop is not None:
        draw = RandomCrop(crop.scale, crop.ratio, recipe.seed)
        images = replace(images, preprocess=replace(images.preprocess, size=crop.size or images.preprocess.size))
    part = devices.own_part(recipe.batch_size)
    length = len(order.rows) // recipe.batch_size * (part.stop - part.start)
    rows = partial(order.flat, part=part)
    return DecodeAhead(images, train.labels, rows, length, draw, recipe.decode_processes)
