"""Lists a model's layers and their costs from one abstract trace; models need no extra code."""

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
from ..registry import build, resolve_image_size, variant
from ..types import Key, Logits

__all__ = ["LayerRow", "summary"]

#: Marks a layer's path in the name stack of an equation.
_SCOPE = "<{}>"


@dataclass(frozen=True)
class LayerRow:
    """The cost of one layer, or of the arrays and matrix products that a block has outside its inner layers.

    - `path`: the layer is `model.<path>`; empty for the model itself.
    - `kind`: the layer's class.
    - `output`: the output shape of the last call; `None` for a layer that is not called in eval mode or does not
      return a single array.
    - `calls`: the number of calls.
    - `params`: the size of the layer's arrays, without the arrays of inner layers.
    - `multiply_adds`: the multiply-adds of all calls on one image, not counting inner layers.
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
    """Returns a model's layers and their costs, in the order of their calls on one image in eval mode.

    There is one row for each layer without inner layers, and one for each block (or the model) that has arrays or
    multiply-adds outside its inner layers. The rows add up to the whole model.

    **Arguments:** as for `zoo.create_model`.

    **Raises:** `InputError` for an unknown name or keyword, or an invalid value.
    """
    layers: list[_Layer] = []

    def scores(key: Key, image: jax.Array) -> Logits:
        model, state = build(
            name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, key=key, **architecture
        )
        return _record_calls(eqx.nn.inference_mode(model), "", None, layers, count())(image, state, key=None)[0]

    size = resolve_image_size(name, image_size)
    image = jax.ShapeDtypeStruct((*size, in_channels or variant(name).input[2]), jnp.float32)
    costs = count_multiply_adds_by_scope(scores, jax.random.key(0), image)
    by_path = {layer.path: layer for layer in layers}
    for scope, cost in costs.items():
        # The cost belongs to the innermost layer, whose path comes last in the scope.
        *_, path = ("", *re.findall(_SCOPE.format("(.*?)"), scope))
        by_path[path].multiply_adds += cost
    return [layer.row() for layer in sorted(layers, key=lambda layer: layer.first_call) if layer.is_shown()]


@dataclass(eq=False)
class _Layer:
    """The record of one layer during the trace; all records share `clock`, which numbers the calls."""

    path: str
    kind: str
    clock: Iterator[int]
    is_leaf: bool = True
    #: The number of the layer's first call; infinite for a layer that is never called, which therefore comes last.
    first_call: float = math.inf
    calls: int = 0
    output: tuple[int, ...] | None = None
    params: int = 0
    multiply_adds: int = 0

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Calls `function` in a scope with the layer's path, and records the call and the output shape."""
        self.first_call = min(self.first_call, next(self.clock))
        self.calls += 1
        with jax.named_scope(_SCOPE.format(self.path)):
            out = function(*arguments, **keywords)
            first, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
            if not eqx.is_array(first):
                return out
            first = _record_shape(first, self)
            return first if rest is None else (first, *rest)

    def is_shown(self) -> bool:
        """Returns whether the layer gets a row."""
        return bool(self.params or self.multiply_adds or (self.is_leaf and self.calls))

    def row(self) -> LayerRow:
        """Returns the layer's row. Call this method after the trace, which counts the multiply-adds."""
        return LayerRow(self.path, self.kind, self.output, self.calls, self.params, self.multiply_adds)


def _record_shape(x: Array, layer: _Layer) -> Array:
    """Returns `x` and records its shape in `layer`, including vmapped axes, outermost first."""
    try:
        from jax.custom_batching import custom_vmap
    except ImportError:  # JAX does not guarantee that this module exists; without it, the shape lacks mapped axes
        layer.output = x.shape
        return x

    @custom_vmap
    def identity(x: Array) -> Array:
        layer.output = x.shape
        return x

    @identity.def_vmap
    def _(size: int, is_batched: list[bool], x: Array) -> tuple[Array, bool]:
        # Here the mapped axis is the first axis of `x`.
        return _record_shape(x, layer), True

    return identity(x)


def _record_calls(node: PyTree, path: str, owner: _Layer | None, layers: list[_Layer], clock: Iterator[int]) -> PyTree:
    """Returns a copy of a part of a model, whose layers record their calls; appends each layer's record to `layers`.

    **Arguments:**

    - `node`, `path`: the part and its path in the model.
    - `owner`: the innermost layer around the part, to which the part's arrays belong.
    - `clock`: the counter that numbers the calls.
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
    children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda leaf: leaf is not node)
    paths = [".".join(filter(None, (path, jax.tree_util.keystr(key, simple=True)))) for key, _ in children]
    parts = [_record_calls(child, at, owner, layers, clock) for at, (_, child) in zip(paths, children, strict=True)]
    copy = jax.tree.unflatten(structure, parts)
    if is_layer:
        # Modules are frozen, but changing this copy is safe, because nothing else refers to it yet.
        object.__setattr__(copy, "__class__", _recording_class(type(copy)))
        object.__setattr__(copy, "record", owner)
    return copy


@cache
def _recording_class(kind: type[eqx.Module]) -> type[eqx.Module]:
    """Returns a subclass that records its calls; as a subclass it satisfies `isinstance` and type annotations."""

    class Recording(kind):
        record: Any = eqx.field(static=True, default=None)

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            return self.record.call(kind.__call__, self, *arguments, **keywords)

    return Recording
