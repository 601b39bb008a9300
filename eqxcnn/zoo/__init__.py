"""The model zoo: lists the models of `eqxcnn/models` and of other packages, builds them by name and describes them."""

import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import jaxtyped

from ..catalog import plugin_problems, register
from ..cost import count_multiply_adds, count_parameters
from ..errors import InputError, nearest
from ..forward_pass import forward
from ..images import Preprocess
from ..registry import build, families, family, variant
from ..types import Classifier, Key, Variant
from ..weights.bundled import Bundled
from ..weights.presets import PRESETS
from ..weights.published import PUBLISHED, Published, build_published
from .by_layer import LayerRow, summary

__all__ = ["Card", "LayerRow", "card", "count_parameters", "create_model", "list_models", "register", "summary"]


@dataclass(frozen=True)
class Card:
    """The facts about a model.

    - `name`: the model's name.
    - `family`: the name of the model's file in `eqxcnn/models`; `PACKAGE/ENTRY_POINT` for a model of another package,
      and `MODULE/CONSTRUCTOR` for a registered model.
    - `input`: the published `(height, width, channels)`.
    - `num_classes`: the published number of classes.
    - `params`: the parameter count at that input and number of classes.
    - `multiply_adds`: multiply-adds of the convolutions and matrix products in a forward pass of one image.
    - `source`, `task`, `recipe`, `torch_twin`, `smallest`, `strides`: see `eqxcnn.types.Variant`.
    - `pretrained`: the weights of `create_model(pretrained=True)`, if there are any. Weights in this package come
      with their scores on the test split (`accuracy`, `classes`), the data set, recipe and seed of their training
      (`data`, `recipe`, `seed`), and the time of an epoch (`epoch_seconds`); weights on the Hub come with `repository`,
      `revision` and `sha256`.
    - `preprocess`: the `eqxcnn.images.Preprocess` that the weights of `create_model(pretrained=True)` expect. Without
      trained weights, it is the preprocessing that torchvision or timm publishes for the torch twin. If there is no
      twin either, it is `None`. `card(name).preprocess(image)` takes a path, encoded bytes or a Pillow image, and
      returns the pixels `uint8[h w c]`.
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
    pretrained: Bundled | Published | None
    preprocess: Preprocess | None


@jaxtyped(typechecker=beartype)
def list_models(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> list[str]:
    """Returns the names of the models, sorted.

    Warns about every installed package whose models cannot be used.

    **Arguments:**

    - `pattern`: a name with shell wildcards, such as `"resnet*"`.
    - `task`: only models published for `"mnist"`, `"cifar"`, `"catsdogs"` or `"imagenet"`, or for a task that another
      package defines.
    - `pretrained`: only models with trained weights, in this package or on the Hugging Face Hub.

    **Raises:** `InputError` for an unknown task.
    """
    tasks = {row.task for _, row in families().values()}
    for problem in plugin_problems():
        warnings.warn(problem, stacklevel=2)
    if task is not None and task not in tasks:
        raise InputError(f"`task` (={task!r}) is unknown; {nearest(task, tasks)}")
    return [
        name
        for name, (_, row) in families().items()
        if fnmatchcase(name, pattern) and task in (None, row.task) and (name in PUBLISHED or not pretrained)
    ]


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
    """Builds a model by name.

    **Arguments:**

    - `name`: one of `list_models()`.
    - `num_classes`, `in_channels`, `image_size`: the published values by default. `num_classes=0` builds the model
      without its head, so that it returns pooled features. `image_size` is a side or `(height, width)` in pixels.
    - `pretrained`: whether to load trained weights, from this package or downloaded once from the Hugging Face Hub. If
      `num_classes` differs from the published number, the head is random; if `in_channels` differs, the stem's kernels
      are summed or repeated. For weights in this package, the default `image_size` is the size they were trained with.
    - `key`: the PRNG key of the random initial weights.
    - `**architecture`: keyword arguments of the model's constructor.

    **Returns:** the model and its initial state (see `eqxcnn.forward`).

    **Raises:** `InputError` for an unknown name or keyword, an invalid value, or missing trained weights.
    """
    make = build_published if pretrained else build
    return make(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, key=key, **architecture)


@cache
def card(name: str) -> Card:
    """Returns the facts about a model: its published input, parameters, cost, paper, recipe, twin and preprocessing.

    **Raises:** `InputError` with the nearest names if there is no such model.
    """
    row = variant(name)
    facts = {field: getattr(row, field) for field in Card.__dataclass_fields__ if hasattr(row, field)}
    return Card(
        name=name,
        family=family(name),
        multiply_adds=_count_multiply_adds(name, row),
        pretrained=PUBLISHED.get(name),
        preprocess=PUBLISHED[name].preprocess if name in PUBLISHED else PRESETS.get(row.torch_twin or ""),
        **facts,
    )


def _count_multiply_adds(name: str, row: Variant) -> int:
    """Counts the multiply-adds of one image in eval mode from an abstract trace."""

    def logits(key: Key, images: jax.Array) -> jax.Array:
        model, state = create_model(name, key=key)
        return forward(eqx.nn.inference_mode(model), state, images, key=None)[0]

    return count_multiply_adds(logits, jax.random.key(0), jax.ShapeDtypeStruct((1, *row.input), jnp.float32))
