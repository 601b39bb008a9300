"""`Graph`: an ONNX graph while it is built."""

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
    """An operation has no conversion. The message ends a sentence about the model."""


@dataclass(eq=False)
class Node:
    """One operation: the ONNX operator, the names of its inputs and outputs, and its attributes."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(eq=False)
class Graph:
    """Nodes in the order of their computation, and the arrays that they need.

    - `batch`: the size of the batch, an integer or a symbolic dimension.
    - `nodes`, `arrays`: what was added so far; `arrays` by the names of the tensors.
    - `shapes`, `makers`: the shape of each tensor, and the node that computes it.
    """

    batch: Dimension
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)
    _known: dict[Any, list[str]] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], *shapes: Shape, **attributes: Any) -> str:
        """Adds a node with one output per shape, and returns the name of the first output.

        A node that is there already is not added again.
        """
        key = operator, tuple(inputs), repr(sorted(attributes.items()))
        if key not in self._known:
            outputs = [
                f"{operator.lower()}_{len(self.nodes)}{f'_{index}' * (index > 0)}" for index in range(len(shapes))
            ]
            node = Node(operator, list(inputs), outputs, attributes)
            self.nodes.append(node)
            self._known[key] = outputs
            self.shapes.update(zip(outputs, shapes, strict=True))
            self.makers.update(dict.fromkeys(outputs, node))
        return self._known[key][0]

    def store(self, array: np.ndarray) -> str:
        """Adds an array of numbers, and returns the name of its tensor. Equal arrays share one tensor."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = hashlib.sha256(array.tobytes()).digest(), array.dtype, array.shape
        if key not in self._known:
            name = f"constant_{len(self.arrays)}"
            self._known[key] = [name]
            self.arrays[name], self.shapes[name] = array, array.shape
        return self._known[key][0]

    def integers(self, numbers: Sequence[int | np.integer]) -> str:
        """Adds a vector of integers, such as a shape."""
        return self.store(np.array(numbers, np.int64))

    def place(self, value: Value, axes: Sequence[int | None]) -> str:
        """Returns the name of a tensor with a value's numbers in a certain order of axes.

        **Arguments:**

        - `axes`: for each axis of the tensor, the axis of `value.shape`, or `None` for an axis of length 1. The
          tensor also has length 1 where the value is broadcast.
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
        """Returns the same as `place`, but repeats the numbers where the value is broadcast."""
        name, wanted = self.place(value, axes), tuple(1 if axis is None else value.shape[axis] for axis in axes)
        if self.shapes[name] == wanted:
            return name
        return self.add("Expand", [name, self._shape_vector(wanted)], wanted)

    def reshape(self, name: str, shape: Shape) -> str:
        """Adds a reshape of a tensor to lengths of which at most one is symbolic."""
        if (maker := self.makers.get(name)) is not None and maker.operator == "Reshape":
            name = maker.inputs[0]
        if self.shapes[name] == shape:
            return name
        lengths = [length if is_known(length) else -1 for length in shape]
        if lengths.count(-1) > 1:
            raise Unsupported(f"has an array of shape {shape} with the size of the batch in several axes")
        return self.add("Reshape", [name, self.integers(lengths)], shape)

    def _shape_vector(self, shape: Shape) -> str:
        """Returns the name of a tensor with the lengths of a shape, which may be multiples of the batch."""
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
                raise Unsupported(f"has an axis of length {length}, which is no multiple of the batch")
            parts.append(batch if factor == 1 else self.add("Mul", [batch, self.integers([factor])], (1,)))
        return self.add("Concat", parts, (len(shape),), axis=0)


def tensor(shape: Shape, dtype: Any, name: str, axes: Sequence[int]) -> Value:
    """Returns a value for a tensor of the graph; axes of the tensor that are no axes of `shape` are -1."""
    return Value(tuple(shape), np.dtype(dtype), None, name, tuple(axes))
