"""The models that there are: found by scanning `eqxcnn/models`, built by name, described on a card."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import jaxtyped

from . import models
from .cost import multiply_adds
from .errors import InputError, nearest
from .forward import forward
from .types import Classifier, Key, Variant


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


@cache
def _families() -> Mapping[str, tuple[str, Variant]]:
    """Every variant by name, with its family. Scanned once: a file added to `models/` needs no registration."""
    found: dict[str, tuple[str, Variant]] = {}
    for module in pkgutil.iter_modules(models.__path__):
        family = importlib.import_module(f"{models.__name__}.{module.name}")
        for name, variant in family.variants.items():
            if name in found:
                raise RuntimeError(f"two architectures are named `{name}`: {found[name][0]} and {module.name}")
            found[name] = (module.name, variant)
    return MappingProxyType(dict(sorted(found.items())))


def variant(name: str) -> Variant:
    """The table row of a model.

    **Raises:** `InputError` with the nearest names when there is no such model.
    """
    if name not in _families():
        raise InputError(f"there is no model named `{name}`; {nearest(name, _families())}")
    return _families()[name][1]


@jaxtyped(typechecker=beartype)
def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Names of the models, sorted.

    **Arguments:**

    - `pattern`: shell wildcards, such as `"resnet*"`.
    - `task`: only those published on `"mnist"`, `"cifar"`, `"catsdogs"` or `"imagenet"`.
    """
    tasks = {row.task for _, row in _families().values()}
    if task is not None and task not in tasks:
        raise InputError(f"`task` (={task!r}) is none that a model was published on; {nearest(task, tasks)}")
    return [name for name, (_, row) in _families().items() if fnmatchcase(name, pattern) and task in (None, row.task)]


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
    - `pretrained`: with published weights.
    - `key`: for the random initial weights.
    - further keywords go to the architecture's constructor.

    **Returns:** the model and its initial state (see `eqxcnn.forward`).

    **Raises:** `InputError` for a name, size or keyword that cannot be.
    """
    row = variant(name)
    if pretrained:
        raise InputError(
            f"`pretrained` (=True): no published weights are recorded for `{name}`; train it or leave it out"
        )
    arguments = {
        "num_classes": row.num_classes if num_classes is None else num_classes,
        "in_channels": row.input[2] if in_channels is None else in_channels,
        "image_size": checked_size(name, image_size),
    }
    if arguments["num_classes"] < 0 or arguments["in_channels"] < 1:
        raise InputError(
            f"`num_classes` (={arguments['num_classes']}) must be 0 (features) or more and "
            f"`in_channels` (={arguments['in_channels']}) 1 or more"
        )
    _check_keywords(name, row, architecture)
    return eqx.nn.make_with_state(row.make)(**arguments, **architecture, key=key)


def checked_size(name: str, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """`(height, width)` of a model asked for `image_size` (`None`: as published).

    **Raises:** `InputError` naming the smallest size when it is smaller than that.
    """
    row = variant(name)
    size = row.input[:2] if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < row.smallest:
        raise InputError(
            f"`image_size` (={height}x{width}) is too small for `{name}`: the smallest it takes is "
            f"{row.smallest}x{row.smallest}"
        )
    return height, width


def _check_keywords(name: str, row: Variant, given: Mapping[str, Any]) -> None:
    """Refuses a keyword that the architecture's constructor does not have."""
    known = inspect.signature(row.make).parameters
    for keyword in given:
        if keyword not in known:
            raise InputError(f"`{keyword}` is no argument of `{name}`; {nearest(keyword, known)}")


@cache
def card(name: str) -> Card:
    """What is known of a model: its published input, parameters, cost, paper, recipe and torch twin.

    **Raises:** `InputError` with the nearest names when there is no such model.
    """
    row = variant(name)
    shown = {field: getattr(row, field) for field in Card.__dataclass_fields__ if hasattr(row, field)}
    return Card(name=name, family=_families()[name][0], multiply_adds=_cost(name, row), **shown)


def _cost(name: str, row: Variant) -> int:
    """Multiply-adds of one image in eval mode, counted without computing anything."""

    def logits(key: Key, images: jax.Array) -> jax.Array:
        model, state = create_model(name, key=key)
        return forward(eqx.nn.inference_mode(model), state, images, key=None)[0]

    return multiply_adds(logits, jax.random.key(0), jax.ShapeDtypeStruct((1, *row.input), jnp.float32))
