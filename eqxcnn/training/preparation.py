"""Makes a job from a recipe: decodes the data, fills in defaults, and builds model and optimizer."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Num

from .. import augment
from ..data import DataSet, EncodedImages, Split
from ..errors import InputError, nearest
from ..images import Preprocess
from ..metrics import Metric
from ..metrics import build as build_metrics
from ..recipe import OWN, Recipe
from ..runs.folder import MAX_STEPS
from ..runtime.compile import jit_once
from ..runtime.devices import Devices, choose_devices
from ..runtime.peers import Peers
from ..runtime.processes import current_peers
from ..types import Key, ModelState, Network
from .builders import (
    build_average,
    build_lookahead,
    build_mix,
    build_optimizer,
    build_value_and_grad,
    resolve_class_weights,
    resolve_schedule_shape,
)
from .evaluate import choose_batch_size
from .job import Job
from .part_checks import check_augment, check_parts
from .parts import Parts
from .preprocessing import check_normalization, resolve_geometry, resolve_image_size, resolve_normalization
from .reading import Decoding, build_augment, choose_decoding, make_order, make_reader, open_data, read_splits
from .setup import Setup
from .start import init_train_state, load_warm_start
from .state import TrainState

__all__ = ["prepare"]

#: Maximum number of bytes of images that one call streams to the device; a few calls are in flight at a time.
_STREAMED_BYTES = 64 << 20


def prepare(recipe: Recipe, parts: Parts | None = None, *, is_resumed: bool = False) -> Job:
    """Prepares a run: does all the work that comes before the first step.

    **Arguments:**

    - `parts`: objects that replace what the recipe would build.
    - `is_resumed`: whether the weights come from a checkpoint; `pretrained` and `init_from` are then not loaded.

    **Raises:** `InputError` for data that cannot be read or do not fit the recipe.
    """
    parts = parts or Parts()
    recipe = parts.apply_to(recipe)
    metrics = _collect_metrics(recipe, parts)
    peers, devices = current_peers(), choose_devices(recipe.devices, recipe.shard_params)
    devices.check_batch_size(recipe.batch_size)
    stages = augment.build_stages(recipe.augment) if parts.augment is None else [parts.augment]
    source = open_data(recipe, parts.data)
    image_size = resolve_image_size(recipe, source.info)
    shape = (*image_size, source.info.channels)
    if parts.augment is not None:
        check_augment(parts.augment, shape)
    check_normalization(recipe, source.info)
    warm = None if is_resumed else load_warm_start(recipe, source.info, image_size)
    preprocess = resolve_geometry(recipe, source.info, warm and warm.preprocess, is_resumed)
    source, decode = _agree_on_decoding(recipe, source, preprocess, parts, peers)
    crop, transform = build_augment(recipe, stages, shape, decode)
    splits = read_splits(recipe, source, preprocess, decode)
    train, train_rows = splits.train, splits.train_rows
    epochs, steps_per_epoch, steps = _count_steps(recipe, len(train_rows))
    preprocess = resolve_normalization(recipe, preprocess, warm and warm.preprocess, train.images, train_rows)
    moments = jnp.asarray(preprocess.mean, jnp.float32), jnp.asarray(preprocess.std, jnp.float32)
    optimizer = build_optimizer(recipe, steps, steps_per_epoch, parts.optimizer)
    class_weights = resolve_class_weights(recipe, train.labels[train_rows], source.info)
    init_key, step_key = jax.random.split(jax.random.key(recipe.seed))
    init = partial(init_train_state, recipe, source.info, image_size, optimizer, moments)
    own = None if parts.model is None else parts.network
    start = own, _init_images(recipe, train, train_rows), {} if warm is None else warm.tensors, init_key
    template = eqx.filter_eval_shape(init, *start)
    check_parts(recipe, parts, template, optimizer, shape, len(source.info.class_names))
    setup = Setup(
        value_and_grad=build_value_and_grad(recipe, template.model, class_weights, parts.loss),
        optimizer=optimizer,
        augment=transform,
        lookahead=build_lookahead(recipe, steps),
        steps_per_epoch=steps_per_epoch,
        key=devices.replicate(step_key),
        mean=devices.replicate(moments[0]),
        std=devices.replicate(moments[1]),
        data=_put_on_devices(recipe, train, devices),
        mix=build_mix(recipe),
        average=build_average(recipe, steps, steps_per_epoch),
        skip_nan=recipe.on_nan == "skip",
    )
    steps_per_call = _resolve_steps_per_call(recipe, train, is_streamed=setup.data is None)
    resolved = replace(
        recipe, data=source.info.source if parts.data is None else OWN, epochs=epochs, steps_per_call=steps_per_call,
        image_size=image_size, resize=preprocess.resize, crop_fraction=preprocess.crop_fraction,
        interpolation=preprocess.interpolation, decode=decode, mean=preprocess.mean, std=preprocess.std,
        eval_batch_size=choose_batch_size(recipe.eval_batch_size, image_size), class_weights=class_weights,
        train_images=recipe.train_images or len(train.labels),
        **asdict(resolve_schedule_shape(recipe)),
    )  # fmt: skip
    order = make_order(recipe, splits)
    return Job(
        resolved, steps, steps_per_call, preprocess, source.info, splits, order,
        make_reader(recipe, train, order, crop, devices), setup, template,
        partial(_make_start, devices, jit_once(init), *start), devices, peers, parts, metrics,
    )  # fmt: skip


def _agree_on_decoding(
    recipe: Recipe, source: DataSet, preprocess: Preprocess, parts: Parts, peers: Peers
) -> tuple[DataSet, Decoding]:
    """Chooses the decoding with `choose_decoding`. If one process must stream its images, all processes stream them."""
    source, decode = choose_decoding(recipe, source, preprocess, parts.data is None)
    if "stream" in peers.gather(decode) and decode != "stream":
        # Another process streams, because its machine has no space for all decoded images.
        return choose_decoding(recipe.replace(decode="stream"), source, preprocess, parts.data is None)
    return source, decode


def _collect_metrics(recipe: Recipe, parts: Parts) -> dict[str, Metric]:
    """Returns the metrics of the recipe and of the user, and checks that the monitored metric is among them."""
    metrics = {**build_metrics(recipe.metrics), **parts.metrics}
    known = ["train_loss", "train_accuracy", *(f"validation_{name}" for name in ("loss", "accuracy", *metrics))]
    if recipe.monitor not in known:
        guess = nearest(recipe.monitor, known)
        raise InputError(f"`monitor` (={recipe.monitor!r}) is not a metric of this run; {guess}")
    return metrics


def _count_steps(recipe: Recipe, images: int) -> tuple[int | float, int, int]:
    """Returns epochs, steps per epoch and steps of a run on this number of training images."""
    # With the default number of epochs, training takes seconds on a laptop: 20 epochs for a thousand digits, 6 epochs
    # for MNIST.
    epochs = recipe.epochs or int(np.clip(round(320_000 / images), 5, 20))
    steps_per_epoch = images // recipe.batch_size
    # The product is rounded first, because in floating point it may slightly exceed a whole number.
    steps = max(math.ceil(round(epochs * steps_per_epoch, 6)), 1)
    if steps > MAX_STEPS:
        raise InputError(f"`epochs` (={epochs}) makes {steps:,} steps, and a run has at most {MAX_STEPS:,}: give fewer")
    return epochs, steps_per_epoch, steps


def _resolve_steps_per_call(recipe: Recipe, train: Split, is_streamed: bool) -> int:
    """Returns the recipe's steps per call, or else the backend's default. For streamed images, a lower default limits
    the size of a call."""
    if not recipe.jit:
        # Several steps per call would use `jax.lax.scan`, which compiles them even without `jit`.
        return 1
    default = 1 if jax.default_backend() == "cpu" else 100
    if is_streamed:
        bytes_per_step = recipe.batch_size * (train.images.nbytes // len(train.labels))
        default = max(min(default, _STREAMED_BYTES // bytes_per_step), 1)
    return recipe.steps_per_call or default


def _make_start(
    devices: Devices,
    init: Callable[..., TrainState],
    own: tuple[Network, ModelState] | None,
    pixels: Num[np.ndarray, "i h w c"],
    tensors: dict[str, np.ndarray],
    key: Key,
) -> TrainState:
    # The user's arrays are copied, because steps reuse the memory of their arguments.
    own = jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, own)
    # Compiled functions accept NumPy arrays, but with jit disabled `init` needs JAX arrays.
    return devices.place_state(init(own, jnp.asarray(pixels), jax.tree.map(jnp.asarray, tensors), key))


def _init_images(recipe: Recipe, train: Split, rows: Int[np.ndarray, " k"]) -> Num[np.ndarray, "i h w c"]:
    """Returns the training images from which data-dependent weights are initialized."""
    if recipe.init_images > len(rows):
        raise InputError(
            f"`init_images` (={recipe.init_images}) is more than the {len(rows):,} training images: give fewer"
        )
    if isinstance(train.images, EncodedImages):
        return train.images.first_readable(rows, recipe.init_images)
    return train.images[rows[: recipe.init_images]]


def _put_on_devices(recipe: Recipe, train: Split, devices: Devices) -> tuple[jax.Array, jax.Array] | None:
    """Returns the training images and labels as device arrays.

    Returns `None` if the images are decoded during training, or if they exceed the `device_budget` of all devices
    together. Images that fit on one device are copied to every device; images that fit only on all devices together are
    split over the devices.
    """
    budget = recipe.device_budget * 2**30
    if isinstance(train.images, EncodedImages) or train.images.nbytes > budget * devices.count:
        return None
    labels = _replicate(train.labels, devices)
    if train.images.nbytes > budget:
        # XLA looks up each row on the device that holds it.
        return devices.split_rows(train.images), labels
    return _replicate(train.images, devices), labels


def _replicate(array: np.ndarray, devices: Devices) -> jax.Array:
    return jnp.asarray(array) if devices.mesh is None else cast(jax.Array, devices.replicate(array))
