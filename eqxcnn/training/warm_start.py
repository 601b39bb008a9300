"""Weights that a run starts from in the place of random ones: published, or of an earlier run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import inference, registry
from ..data import DataInfo
from ..errors import InputError
from ..recipe.recipe import Recipe
from ..recipe.settings import parse_arguments
from ..weights import to_tensors
from ..weights.fit import fit_tensors
from ..weights.published import PUBLISHED, load_published_tensors
from ..weights.tensors import tensor_shapes
from ..weights.torch import convert_from_torch_except_head, read_torch


@dataclass(frozen=True)
class WarmStart:
    """What a run starts from.

    - `tensors`: by the names of the model's; the head's are left out where it is of other classes.
    - `moments`: mean and deviation a channel that these weights were trained with, where that is known.
    """

    tensors: dict[str, np.ndarray]
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def warm_start(recipe: Recipe, info: DataInfo, image_size: tuple[int, int]) -> WarmStart | None:
    """The weights that the recipe starts from, for its model on these data; `None` where they are random.

    **Raises:** `InputError` where they cannot be read, are another model's, or do not fit.
    """
    if not recipe.pretrained and recipe.init_from is None:
        return None
    arguments: dict[str, Any] = {"image_size": image_size, **parse_arguments("architecture", recipe.architecture)}
    made_for = {"num_classes": len(info.class_names), "in_channels": info.channels, **arguments}
    places = tensor_shapes(*eqx.filter_eval_shape(registry.build, recipe.model, **made_for, key=jax.random.key(0)))
    if recipe.pretrained:
        published, origin = load_published_tensors(recipe.model, **arguments), f"the published file of `{recipe.model}`"
        row = PUBLISHED[recipe.model]
        return WarmStart(fit_tensors(published, places, origin), (row.mean, row.std))
    return _of_path(recipe, Path(str(recipe.init_from)), places)


def _of_path(recipe: Recipe, path: Path, places: dict[str, tuple[int, ...]]) -> WarmStart:
    """The weights of a run, a model's folder or a file."""
    origin = f"`init_from` (={str(path)!r})"
    if not path.exists():
        raise InputError(f"{origin} is not there: give a finished run, its model folder, or a file with weights")
    if path.is_dir():
        there = inference.load(path)
        if there.name != recipe.model:
            raise InputError(f"{origin} is a `{there.name}`, and the recipe trains `{recipe.model}`: set `model` to it")
        mean, std = (tuple(np.asarray(each, np.float64).round(6).tolist()) for each in (there.mean, there.std))
        return WarmStart(fit_tensors(to_tensors(there.model, there.state), places, origin), (mean, std))
    tensors = read_torch(path)
    if set(tensors) != set(places):
        return WarmStart(convert_from_torch_except_head(recipe.model, places, tensors))
    return WarmStart(fit_tensors(tensors, places, origin))
