"""The models that there are: found by scanning `eqxcnn/models`, built by name, described on a card."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import jaxtyped

from ..cost import count_multiply_adds, count_parameters
from ..errors import InputError, nearest
from ..forward_pass import forward
from ..registry import build, families, family, variant
from ..types import Classifier, Key, Variant
from ..weights.published import build_published
from .by_layer import LayerRow, summary

__all__ = ["Card", "LayerRow", "card", "count_parameters", "create_model", "list_models", "summary"]


@dataclass(frozen=True)
class Card:
    """What is known of a model without building it.

    - `name`, `family`: the model's name and the file of `eqxcnn/models` that holds it.
    - `input`: `(height, width, channels)`.
    - `params`: parameter count at that input and `num_classes`.
    - `multiply_adds`: of one forward pass of one image, convolutions and matrix products counted.
    - `source`, `task`, `recipe`, `torch_twin`, `smallest`, `strides`: see `eqxcnn.types.Variant`.
    """

    name: str
    family: str
    input: tuple[int, int, int]
    num_classes: int
    params: int
    multiply_adds: int
    source: str
    task: str
    smallest: int
    strides: tuple[int, ...]
    recipe: str | None
    torch_twin: str | None


@jaxtyped(typechecker=beartype)
def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Names of the models, sorted.

    **Arguments:**

    - `pattern`: shell wildcards, such as `"resnet*"`.
    - `task`: only those published on `"mnist"`, `"cifar"`, `"catsdogs"` or `"imagenet"`.
    """
    tasks = {row.task for _, row in families().values()}
    if task is not None and task not in tasks:
        raise InputError(f"`task` (={task!r}) is none that a model was published on; {nearest(task, tasks)}")
    return [name for name, (_, row) in families().items() if fnmatchcase(name, pattern) and task in (None, row.task)]


@jaxtyped(typechecker=beartype)
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    key: Key,
    **architecture: Any,
) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model.

    **Arguments:**

    - `name`: one of `list_models()`.
    - `num_classes`, `in_channels`, `image_size`: as published unless given; `num_classes=0` gives pooled features.
      `image_size` is a side or `(height, width)`, in pixels.
    - `pretrained`: with published weights, fetched from the Hugging Face Hub once. Another `num_classes` than published
      gets a random head; for other `in_channels` the stem's kernels are summed or repeated.
    - `key`: for the random initial weights.
    - further keywords go to the architecture's constructor.

    **Returns:** the model and its initial state (see `eqxcnn.forward`).

    **Raises:** `InputError` for a name, size or keyword that cannot be.
    """
    make = build_published if pretrained else build
    return make(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, key=key, **architecture)


@cache
def card(name: str) -> Card:
    """What is known of a model: its published input, parameters, cost, paper, recipe and torch twin.

    **Raises:** `InputError` with the nearest names when there is no such model.
    """
    row = variant(name)
    shown = {field: getattr(row, field) for field in Card.__dataclass_fields__ if hasattr(row, field)}
    return Card(name=name, family=family(name), multiply_adds=_cost(name, row), **shown)


def _cost(name: str, row: Variant) -> int:
    """Multiply-adds of one image in eval mode, counted without computing anything."""

    def logits(key: Key, images: jax.Array) -> jax.Array:
        model, state = create_model(name, key=key)
        return forward(eqx.nn.inference_mode(model), state, images, key=None)[0]

    return count_multiply_adds(logits, jax.random.key(0), jax.ShapeDtypeStruct((1, *row.input), jnp.float32))
