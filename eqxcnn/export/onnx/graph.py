"""`Graph`: an ONNX graph under construction."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .values import Dimension, Shape, Value, is_known

__all__ = ["INPUT", "Graph", "Node", "Unsupported", "tensor"]

#: The name of the graph's input.
INPUT = "pixels"


class Unsupported(Exception):
    """An operation has no conversion to ONNX. The message continues a sentence that starts with the model's name."""


@dataclass(eq=False)
class Node:
    """One operation: the ONNX operator, the names of its inputs and of its output, and its attributes."""

    operator: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


@dataclass(eq=False)
class Graph:
    """Nodes in the order of their computation, and the constants that they need.

    - `batch`: the size of the batch, an integer or a symbolic dimension.
    - `nodes`, `arrays`: the nodes in order, and the constant arrays by the names of their tensors.
    - `shapes`, `makers`: the shape of each tensor, and the node that computes it.
    """

    batch: Dimension
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)
    _known: dict[Any, str] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], shape: Shape, **attributes: Any) -> str:
        """Adds a node, unless an equal node exists, and returns the name of its output, whose shape is `shape`."""
        key = operator, tuple(inputs), repr(sorted(attributes.items()))
        if key not in self._known:
            name = f"{operator.lower()}_{len(self.nodes)}"
            node = Node(operator, list(inputs), name, attributes)
            self.nodes.append(node)
            self._known[key], self.shapes[name], self.makers[name] = name, shape, node
        return self._known[key]

    def store(self, array: np.ndarray) -> str:
        """Adds a constant array, and returns the name of its tensor. Equal arrays share one tensor."""
        key = hashlib.sha256(array.tobytes()).digest(), array.dtype, array.shape
        if key not in self._known:
            name = f"constant_{len(self.arrays)}"
            self._known[key] = name
            self.arrays[name], self.shapes[name] = array, array.shape
        return self._known[key]

    def integers(self, numbers: Sequence[int | np.integer]) -> str:
        """Adds a vector of integers, such as a shape."""
        return self.store(np.array(numbers, np.int64))

    def place(self, value: Value, axes: Sequence[int | None]) -> str:
        """Returns the name of a tensor that holds the numbers of `value` in the given axis order.

        **Arguments:**

        - `axes`: for each axis of the tensor, the axis of `value.shape`, or `None` for an axis of length 1. The
          tensor also has length 1 along axes where the value is broadcast.
        """
        stored = value.stored
        assert set(stored) <= set(axes), (stored, axes)
        if value.array is not None:
            order = [
                *(axis for axis in axes if axis in stored),
                *(a for a in range(value.array.ndim) if a not in stored),
            ]
            lengths = [value.array.shape[axis] if axis in stored else 1 for axis in axes]
            return self.store(value.array.transpose(order).reshape(lengths))
        name, now = value.name, list(value.axes)
        if [axis for axis in axes if axis in stored] != stored:
            rank = {axis: index for index, axis in enumerate(axes)}
            order = sorted(range(len(now)), key=lambda index: rank.get(now[index], len(axes)))
            now = [now[index] for index in order]
            shape = tuple(self.shapes[name][index] for index in order)
            name = self.add("Transpose", [name], shape, perm=order)
        if now != list(axes):
            name = self.reshape(name, tuple(value.shape[axis] if axis in stored else 1 for axis in axes))
        return name

    def place_fully(self, value: Value, axes: Sequence[int | None]) -> str:
        """Like `place`, but repeats the numbers along broadcast axes."""
        name, wanted = self.place(value, axes), tuple(1 if axis is None else value.shape[axis] for axis in axes)
        if self.shapes[name] == wanted:
            return name
        return self.add("Expand", [name, self._shape_vector(wanted)], wanted)

    def reshape(self, name: str, shape: Shape) -> str:
        """Adds a reshape of a tensor to a shape with at most one symbolic length."""
        if (maker := self.makers.get(name)) is not None and maker.operator == "Reshape":
            name = maker.inputs[0]
        if self.shapes[name] == shape:
            return name
        lengths = [length if is_known(length) else -1 for length in shape]
        if lengths.count(-1) > 1:
            raise Unsupported(f"has an array of shape {shape}, in which several axes depend on the batch")
        return self.add("Reshape", [name, self.integers(lengths)], shape)

    def _shape_vector(self, shape: Shape) -> str:
        """Returns the name of a tensor that holds a shape; each length is known or a multiple of the batch size."""
        if all(is_known(length) for length in shape):
            return self.integers(shape)
        batch = self.add("Shape", [INPUT], (1,), start=0, end=1)
        parts = []
        for length in shape:
            if is_known(length):
                parts.append(self.integers([length]))
                continue
            factor = length // self.batch
            if not is_known(factor) or factor * self.batch != length:
                raise Unsupported(f"has an axis of length {length}, which is not a multiple of the batch")
            parts.append(batch if factor == 1 else self.add("Mul", [batch, self.integers([factor])], (1,)))
        return self.add("Concat", parts, (len(shape),), axis=0)


def tensor(shape: Shape, dtype: Any, name: str, axes: Sequence[int]) -> Value:
    """Returns a value for a tensor of the graph; `axes` has -1 for an axis of the tensor that is not in `shape`."""
    return Value(tuple(shape), np.dtype(dtype), None, name, tuple(axes))
