"""Prepares the first step: weights to start from, and the initial train state."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .. import registry, zoo
from ..data import DataInfo
from ..errors import InputError
from ..forward_pass import normalize
from ..hub_models import resolve_run
from ..images import Preprocess
from ..optim.factors import Factor, parse_factors
from ..optim.optimizers import Optimizer
from ..recipe import Recipe
from ..saved_classifier import load
from ..types import DataInitialized, Images, Key, ModelState, Network, Pixels
from ..weights import to_tensors
from ..weights.fit import fit_tensors
from ..weights.published import PUBLISHED, find_published, load_published_tensors
from ..weights.tensors import from_tensors, tensor_shapes, tensor_slots
from ..weights.torch import convert_from_torch_except_head, read_torch
from .state import TrainState

__all__ = [
    "WarmStart",
    "freeze_modes",
    "init_train_state",
    "load_warm_start",
]


@dataclass(frozen=True)
class WarmStart:
    """Weights that a run starts from instead of random weights.

    - `tensors`: weights by name, without the head's weights if the number of classes differs.
    - `preprocess`: the preprocessing that these weights were trained with, if known.
    """

    tensors: dict[str, np.ndarray]
    preprocess: Preprocess | None = None


def load_warm_start(recipe: Recipe, info: DataInfo, image_size: tuple[int, int]) -> WarmStart | None:
    """Loads the weights that the recipe starts from; returns `None` if it starts from random weights.

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
        return WarmStart(fit_tensors(published, places, origin), PUBLISHED[recipe.model].preprocess)
    return _load_init_from(recipe, str(recipe.init_from), places)


def _load_init_from(recipe: Recipe, init_from: str, places: dict[str, tuple[int, ...]]) -> WarmStart:
    """Loads weights from a run folder, a model folder, a file or the Hub, or by the name of a model."""
    origin, path = f"`init_from` (={init_from!r})", resolve_run(init_from)
    # `Path.exists` raises for a name that is too long or a folder without access; `os.path.exists` returns `False`.
    is_name = find_published(path) is not None
    if not is_name and not os.path.exists(path):
        raise InputError(
            f"{origin} does not exist: give a finished run, its model folder, a file with weights, the name of a model "
            "with trained weights, or `hub:user/name` for a model on the Hub"
        )
    if is_name or path.is_dir():
        trained = load(path)
        if not registry.is_same_network(trained.name, recipe.model):
            raise InputError(
                f"{origin} holds a `{trained.name}`, but the recipe trains `{recipe.model}`: set `model` to "
                f"{trained.name}"
            )
        return WarmStart(fit_tensors(to_tensors(trained.model, trained.state), places, origin), trained.preprocess)
    tensors = read_torch(path)
    if set(tensors) != set(places):
        return WarmStart(convert_from_torch_except_head(recipe.model, places, tensors))
    return WarmStart(fit_tensors(tensors, places, origin))


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

    - `moments`: the mean and standard deviation that normalize the images.
    - `own`: a network and its state, used instead of building the recipe's model.
    - `pixels`: the first `init_images` training images `[i h w c]`.
    - `tensors`: weights by name, used instead of random weights.
    - `key`: PRNG key for the random weights.

    **Raises:** `InputError` if the recipe sets `init_images` for a model without data-dependent weights.
    """
    arguments = {"num_classes": len(info.class_names), "in_channels": info.channels, "image_size": image_size}
    if own is None:
        model, state = zoo.create_model(recipe.model, **arguments, key=key, **recipe.architecture_arguments)
    else:
        model, state = own
    if tensors:
        # `tensors` lacks the head's weights if the number of classes differs; the head then keeps its random weights.
        merged: dict[str, Any] = {**tensor_slots(model, state), **tensors}
        model, state = from_tensors(model, state, merged)
    model = freeze_modes(model, parse_factors(recipe.learning_rate_factors, recipe.freeze))
    if recipe.init_images:
        model = _init_from_images(recipe, model, normalize(pixels, *moments))
    copies = {"use_lookahead": recipe.lookahead_every > 0, "use_average": recipe.average != "none"}
    return TrainState.start(model, state, optimizer, **copies)


def freeze_modes(model: Network, factors: Sequence[Factor]) -> Network:
    """Puts the normalization and dropout layers of frozen parts into eval mode, since their outputs would still vary in
    training mode."""
    frozen = [factor for factor in factors if factor.setting == "freeze"]

    def has_mode(node: Any) -> bool:
        return isinstance(node, eqx.Module) and hasattr(node, "inference")

    def set_mode(path: Any, node: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # A pattern may match the name of the module or of its `weight`. The name of the module is needed for dropout,
        # which has no `weight`.
        is_frozen = has_mode(node) and any(each.matches(name) or each.matches(f"{name}.weight") for each in frozen)
        return eqx.nn.inference_mode(node) if is_frozen else node

    return jax.tree_util.tree_map_with_path(set_mode, model, is_leaf=has_mode) if frozen else model


def _init_from_images(recipe: Recipe, model: Network, images: Images) -> Network:
    """Initializes the data-dependent weights (such as airbench94's whitening layer) from a few training images."""
    if not isinstance(model, DataInitialized):
        raise InputError(
            f"`init_images` (={recipe.init_images}) initializes weights from images, but `{recipe.model}` has no such "
            "weights: give 0, or train `airbench94`"
        )
    return model.initialized_from(images)
