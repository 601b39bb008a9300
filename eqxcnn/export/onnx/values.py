"""`Value`: an array of the traced program, either a constant or a tensor of the ONNX graph."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Dimension", "Shape", "Value", "is_known", "is_one"]

#: The length of an axis: an integer, or an expression of the symbolic batch size.
Dimension: TypeAlias = Any
Shape: TypeAlias = tuple[Dimension, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """An array of the traced program.

    A value records how its numbers are stored, so transposing, adding axes of length 1 and broadcasting need no
    operation in the graph. An operation that needs a certain axis order calls `Graph.place`.

    - `shape`, `dtype`: as in the traced program; `shape` may contain the symbolic batch size.
    - `array`: the numbers of a constant; `None` for a tensor. The array has one axis for each axis of `shape`, with
      length 1 along axes where the constant is broadcast.
    - `name`, `axes`: the name of a tensor, and for each of its axes the corresponding axis of `shape`, or -1 for an
      axis of length 1 that `shape` does not have. The value is broadcast along axes of `shape` that are not in `axes`.
    """

    shape: Shape
    dtype: np.dtype
    array: np.ndarray | None = None
    name: str = ""
    axes: tuple[int, ...] = ()

    @property
    def stored(self) -> list[int]:
        """The axes that are longer than 1 and not broadcast, in storage order."""
        if self.array is not None:
            return [axis for axis, length in enumerate(self.array.shape) if length != 1]
        return [axis for axis in self.axes if axis >= 0 and not is_one(self.shape[axis])]

    @property
    def order(self) -> list[int]:
        """The stored axes in storage order, including a tensor's axes of length 1."""
        return self.stored if self.array is not None else [axis for axis in self.axes if axis >= 0]

    def relabel(self, shape: Shape, new_axes: dict[int, int]) -> "Value":
        """Returns the same numbers with another shape; `new_axes` maps each stored axis to its new axis.

        All other axes of the new shape have length 1 or are broadcast.
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
    """Returns whether a length is an integer, and not symbolic."""
    return isinstance(length, int | np.integer)


def is_one(length: Dimension) -> bool:
    """Returns whether a length is the integer 1; false for a symbolic length."""
    return is_known(length) and int(length) == 1
