"""A model layer by layer, read from one abstract trace: nothing is computed, and no model has to help."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, PyTree, jaxtyped

from ..cost import count_multiply_adds_by_scope
from ..registry import build, checked_size, variant
from ..types import Key, Logits

#: How a layer's path is marked among the scopes of an equation.
_SCOPE = "<{}>"


@dataclass(frozen=True)
class LayerRow:
    """One layer of a model, or what a block or the model does between its layers.

    - `path`: where it is in the model, as `model.<path>`; empty for the model itself.
    - `kind`: its class.
    - `output`: the shape of what it gave when last called; `None` for a layer that is not called in eval mode, or
      gives several arrays.
    - `calls`: how often it is called.
    - `params`: the size of its own arrays, those of layers inside it left out.
    - `multiply_adds`: of all its calls on one image, those of layers inside it left out.
    """

    path: str
    kind: str
    output: tuple[int, ...] | None
    calls: int
    params: int
    multiply_adds: int


@jaxtyped(typechecker=beartype)
def summary(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    **architecture: Any,
) -> list[LayerRow]:
    """A model's layers in the order in which they are called on an image in eval mode, and what each costs.

    A row is a layer that has no other layers inside; or a block, or the model, that has arrays of its own or
    multiplies matrices between its layers. So the rows add up to the whole model.

    **Arguments:** those of `zoo.create_model`.

    **Raises:** `InputError` for a name, size or keyword that cannot be.
    """
    layers: list[_Layer] = []

    def scores(key: Key, image: jax.Array) -> Logits:
        model, state = build(
            name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, key=key, **architecture
        )
        return _recorded(eqx.nn.inference_mode(model), "", None, layers, count())(image, state, key=None)[0]

    size = checked_size(name, image_size)
    image = jax.ShapeDtypeStruct((*size, in_channels or variant(name).input[2]), jnp.float32)
    costs = count_multiply_adds_by_scope(scores, jax.random.key(0), image)
    by_path = {layer.path: layer for layer in layers}
    for scope, cost in costs.items():
        # The innermost of the layers that it happens in.
        *_, path = ("", *re.findall(_SCOPE.format("(.*?)"), scope))
        by_path[path].multiply_adds += cost
    return [layer.row() for layer in sorted(layers, key=lambda layer: layer.first_call) if layer.is_shown()]


@dataclass(eq=False)
class _Layer:
    """What the trace has seen of one layer so far; `clock` is the trace's, for the order of calls."""

    path: str
    kind: str
    clock: Iterator[int]
    is_leaf: bool = True
    #: Its turn among all layers; those that are never called come last.
    first_call: float = math.inf
    calls: int = 0
    output: tuple[int, ...] | None = None
    params: int = 0
    multiply_adds: int = 0

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Calls the layer's own `__call__` under the layer's name, and notes that and what it gives."""
        self.first_call = min(self.first_call, next(self.clock))
        self.calls += 1
        with jax.named_scope(_SCOPE.format(self.path)):
            out = function(*arguments, **keywords)
            first, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
            if not eqx.is_array(first):
                return out
            noted = _noted(first, self)
            return noted if rest is None else (noted, *rest)

    def is_shown(self) -> bool:
        """Whether there is anything to tell of it."""
        return bool(self.params or self.multiply_adds or (self.is_leaf and self.calls))

    def row(self) -> LayerRow:
        """All of it, when the trace is over."""
        return LayerRow(self.path, self.kind, self.output, self.calls, self.params, self.multiply_adds)


def _noted(x: Array, layer: _Layer) -> Array:
    """`x`, whose shape the layer notes: with every axis that it was vmapped over, first to last."""
    try:
        from jax.custom_batching import custom_vmap
    except ImportError:  # JAX gives no compatibility guarantee for it; without it, mapped axes are missing
        layer.output = x.shape
        return x

    @custom_vmap
    def same(x: Array) -> Array:
        layer.output = x.shape
        return x

    @same.def_vmap
    def _(size: int, is_batched: list[bool], x: Array) -> tuple[Array, bool]:
        # Here `x` has the mapped axis too, in front.
        return _noted(x, layer), True

    return same(x)


def _recorded(node: PyTree, path: str, owner: _Layer | None, layers: list[_Layer], clock: Iterator[int]) -> PyTree:
    """A copy of a model, or of a part of it, that notes in `layers` what is called and what it gives.

    **Arguments:**

    - `node`, `path`: the part, and where it is in the model.
    - `owner`: the layer around it, which owns arrays that are in no other.
    - `clock`: counts calls.
    """
    if jax.tree_util.all_leaves([node]):
        if owner is not None and eqx.is_array(node):
            owner.params += node.size
        return node
    if is_layer := isinstance(node, eqx.Module) and callable(node):
        if owner is not None:
            owner.is_leaf = False
        owner = _Layer(path, type(node).__name__, clock)
        layers.append(owner)
    children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda each: each is not node)
    paths = [".".join(filter(None, (path, jax.tree_util.keystr(key, simple=True)))) for key, _ in children]
    parts = [_recorded(child, at, owner, layers, clock) for at, (_, child) in zip(paths, children, strict=True)]
    copy = jax.tree.unflatten(structure, parts)
    if is_layer:
        # Modules are frozen, but this one is nobody else's yet.
        object.__setattr__(copy, "__class__", _recording(type(copy)))
        object.__setattr__(copy, "noted_in", owner)
    return copy


@cache
def _recording(kind: type[eqx.Module]) -> type[eqx.Module]:
    """A subclass that notes its calls: to `isinstance`, and so to every annotation, it is the layer itself."""

    class Recording(kind):
        noted_in: Any = eqx.field(static=True, default=None)

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            return self.noted_in.call(kind.__call__, self, *arguments, **keywords)

    return Recording
