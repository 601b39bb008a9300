"""Prepares the first step: normalization, weights to start from, and the initial train state."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from .. import inference, registry, zoo
from ..data import DataInfo
from ..errors import InputError
from ..forward_pass import normalize
from ..optim.factors import Factor, parse_factors
from ..optim.optimizers import Optimizer
from ..recipe import Recipe
from ..types import DataInitialized, Images, Key, ModelState, Network, Pixels
from ..weights import to_tensors
from ..weights.fit import fit_tensors
from ..weights.published import PUBLISHED, load_published_tensors
from ..weights.tensors import from_tensors, tensor_shapes, tensor_slots
from ..weights.torch import convert_from_torch_except_head, read_torch
from .state import TrainState

__all__ = [
    "WarmStart",
    "check_normalization",
    "freeze_modes",
    "init_train_state",
    "load_warm_start",
    "pixel_statistics",
    "resolve_normalization",
]


@dataclass(frozen=True)
class WarmStart:
    """Weights that a run starts from instead of random ones.

    - `tensors`: weights by name; the head's weights are left out if the number of classes differs.
    - `moments`: mean and standard deviation per channel of the images that these weights were trained on, if known.
    """

    tensors: dict[str, np.ndarray]
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def load_warm_start(recipe: Recipe, info: DataInfo, image_size: tuple[int, int]) -> WarmStart | None:
    """Loads the weights that the recipe starts from; returns `None` for a recipe that starts from random weights.

    **Raises:** `InputError` if the weights cannot be read, belong to a different model, or do not fit.
    """
    if not recipe.pretrained and recipe.init_from is None:
        return None
    arguments: dict[str, Any] = {"image_size": image_size, **recipe.architecture_arguments}
    sizes = {"num_classes": len(info.class_names), "in_channels": info.channels, **arguments}
    places = tensor_shapes(*eqx.filter_eval_shape(registry.build, recipe.model, **sizes, key=jax.random.key(0)))
    if recipe.pretrained:
        published, origin = (
            load_published_tensors(recipe.model, **arguments),
            f"the weights of `{recipe.model}`",
        )
        row = PUBLISHED[recipe.model]
        return WarmStart(fit_tensors(published, places, origin), (row.mean, row.std))
    return _load_from_path(recipe, Path(str(recipe.init_from)), places)


def _load_from_path(recipe: Recipe, path: Path, places: dict[str, tuple[int, ...]]) -> WarmStart:
    """Loads weights from a run's folder, a model folder or a file."""
    origin = f"`init_from` (={str(path)!r})"
    # For a name that is too long or a locked folder, `os.path.exists` returns `False`, but `Path.exists` raises.
    if not os.path.exists(path):
        raise InputError(f"{origin} does not exist: give a finished run, its model folder, or a file with weights")
    if path.is_dir():
        trained = inference.load(path)
        if trained.name != recipe.model:
            raise InputError(
                f"{origin} holds a `{trained.name}`, but the recipe trains `{recipe.model}`: set `model` to "
                f"{trained.name}"
            )
        mean, std = (tuple(np.asarray(each, np.float64).round(6).tolist()) for each in (trained.mean, trained.std))
        return WarmStart(fit_tensors(to_tensors(trained.model, trained.state), places, origin), (mean, std))
    tensors = read_torch(path)
    if set(tensors) != set(places):
        return WarmStart(convert_from_torch_except_head(recipe.model, places, tensors))
    return WarmStart(fit_tensors(tensors, places, origin))


def check_normalization(recipe: Recipe, info: DataInfo) -> None:
    """Checks that the recipe's mean and standard deviation have one number per channel of the images.

    **Raises:** `InputError` naming the setting.
    """
    for name in ("mean", "std"):
        value = getattr(recipe, name)
        if value is not None and len(value) != info.channels:
            raise InputError(
                f"`{name}` (={list(value)}) must have one number per channel, and the images have {info.channels} "
                f"channel{'s' * (info.channels > 1)}"
            )


def resolve_normalization(
    recipe: Recipe, warm: WarmStart | None, images: Num[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel: the recipe's, else the warm start's, else measured on `rows`."""
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    if warm is not None and warm.moments is not None and len(warm.moments[0]) == images.shape[-1]:
        return warm.moments
    mean, std = pixel_statistics(images, rows)
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def pixel_statistics(
    images: Num[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"], chunk_size: int = 1000
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Returns mean and standard deviation per channel of the images at `rows`, on the scale [0, 1].

    The sums are exact for `uint8` pixels, and in float64 for floating-point images.
    """
    is_pixels = images.dtype == np.uint8
    one, dtype = (255, np.int64) if is_pixels else (1, np.float64)
    total, squares = (np.zeros(images.shape[-1], dtype) for _ in range(2))
    for start in range(0, len(rows), chunk_size):
        chunk = images[rows[start : start + chunk_size]].astype(np.uint16 if is_pixels else np.float64)
        total += chunk.sum((0, 1, 2), dtype=dtype)
        squares += np.square(chunk).sum((0, 1, 2), dtype=dtype)
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A constant channel has a standard deviation of 0, which cannot be a divisor; 1 leaves the channel unscaled.
    return mean / one, np.where(std < 1e-4 * one, one, std) / one


def init_train_state(
    recipe: Recipe,
    info: DataInfo,
    image_size: tuple[int, int],
    optimizer: Optimizer,
    moments: tuple[Float[Array, " c"], Float[Array, " c"]],
    own: tuple[Network, ModelState] | None,
    pixels: Pixels | Images,
    tensors: dict[str, Array],
    key: Key,
) -> TrainState:
    """Builds the recipe's model for the data, and the train state before the first step.

    **Arguments:**

    - `moments`: mean and standard deviation that images are normalized by.
    - `own`: a network and its state to use instead of building the recipe's.
    - `pixels`: the first `init_images` training images `[i h w c]`.
    - `tensors`: weights to use instead of random ones, by name.
    - `key`: for the random weights.

    **Raises:** `InputError` if the recipe sets `init_images` for a model without data-dependent weights.
    """
    arguments = {"num_classes": len(info.class_names), "in_channels": info.channels, "image_size": image_size}
    if own is None:
        model, state = zoo.create_model(recipe.model, **arguments, key=key, **recipe.architecture_arguments)
    else:
        model, state = own
    if tensors:
        # Only the head can be missing, if the number of classes differs; the head then keeps its random weights.
        merged: dict[str, Any] = {**tensor_slots(model, state), **tensors}
        model, state = from_tensors(model, state, merged)
    model = freeze_modes(model, parse_factors(recipe.learning_rate_factors, recipe.freeze))
    if recipe.init_images:
        model = _init_from_images(recipe, model, normalize(pixels, *moments))
    copies = {"use_lookahead": recipe.lookahead_every > 0, "use_average": recipe.average != "none"}
    return TrainState.start(model, state, optimizer, **copies)


def freeze_modes(model: Network, factors: Sequence[Factor]) -> Network:
    """Puts norms and dropout of frozen parts into eval mode, since their outputs would still vary in training mode."""
    frozen = [factor for factor in factors if factor.setting == "freeze"]

    def has_mode(node: Any) -> bool:
        return isinstance(node, eqx.Module) and hasattr(node, "inference")

    def set_mode(path: Any, node: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # A pattern may name the module itself or its `weight`; dropout has no `weight`.
        is_frozen = has_mode(node) and any(each.matches(name) or each.matches(f"{name}.weight") for each in frozen)
        return eqx.nn.inference_mode(node) if is_frozen else node

    return jax.tree_util.tree_map_with_path(set_mode, model, is_leaf=has_mode) if frozen else model


def _init_from_images(recipe: Recipe, model: Network, images: Images) -> Network:
    """Initializes the data-dependent weights (such as airbench94's whitening layer) from a few training images."""
    if not isinstance(model, DataInitialized):
        raise InputError(
            f"`init_images` (={recipe.init_images}) sets weights from images, but `{recipe.model}` has no such "
            "weights: give 0, or train `airbench94`"
        )
    return model.initialized_from(images)
