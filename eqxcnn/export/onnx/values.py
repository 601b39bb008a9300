"""`Value`: an array of the traced program, as a constant or as a tensor of the ONNX graph."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Dimension", "Shape", "Value", "is_known", "is_one"]

#: A length: an integer, or an expression with the symbolic size of the batch.
Dimension: TypeAlias = Any
Shape: TypeAlias = tuple[Dimension, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """An array of the traced program.

    A value says where its numbers are, so that transposing it, adding axes of length 1 and broadcasting it need no
    operation in the graph. An operation that needs a certain order of axes asks for it with `Graph.place`.

    - `shape`, `dtype`: the array's own; `shape` may contain the symbolic size of the batch.
    - `array`: the numbers of a constant, with one axis for each axis of `shape`, of length 1 if the constant is
      broadcast along this axis; `None` for a tensor.
    - `name`, `axes`: the name of a tensor, and for each of its axes the axis of `shape` that it is, or -1 for
      an axis of length 1 that is none of them. The value is broadcast along axes that are missing.
    """

    shape: Shape
    dtype: np.dtype
    array: np.ndarray | None = None
    name: str = ""
    axes: tuple[int, ...] = ()

    @property
    def stored(self) -> list[int]:
        """The axes that are longer than 1 and not broadcast, in the order in which the numbers are stored."""
        if self.array is not None:
            return [axis for axis, length in enumerate(self.array.shape) if length != 1]
        return [axis for axis in self.axes if axis >= 0 and not is_one(self.shape[axis])]

    @property
    def order(self) -> list[int]:
        """The axes in the order in which the numbers are stored, with those of length 1 that a tensor has."""
        return self.stored if self.array is not None else [axis for axis in self.axes if axis >= 0]

    def relabel(self, shape: Shape, new_axes: dict[int, int]) -> "Value":
        """Returns the same numbers with another shape; `new_axes` says which new axis each stored axis becomes.

        All other axes of the new shape have length 1, or the value is broadcast along them.
        """
        if self.array is None:
            return Value(shape, self.dtype, None, self.name, tuple(new_axes.get(axis, -1) for axis in self.axes))
        stored = sorted(self.stored, key=new_axes.__getitem__)
        others = [axis for axis in range(self.array.ndim) if axis not in stored]
        lengths = [1] * len(shape)
        for axis in stored:
            lengths[new_axes[axis]] = self.array.shape[axis]
        return Value(shape, self.dtype, self.array.transpose(*stored, *others).reshape(lengths))


def is_known(length: Dimension) -> bool:
    """Returns whether a length is a number, not symbolic."""
    return isinstance(length, int | np.integer)


def is_one(length: Dimension) -> bool:
    """Returns whether a length is 1; a symbolic length is not."""
    return is_known(length) and int(length) == 1
