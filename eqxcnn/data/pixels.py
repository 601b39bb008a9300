"""Recognizes columns that store pixels as numbers, in arrays or nested lists, and converts their values to images."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
    from pyarrow import Array, ChunkedArray, DataType, ListScalar
else:
    Dataset = Image = Array = ChunkedArray = DataType = ListScalar = Any

__all__ = [
    "are_pixels",
    "count_dims",
    "find_scale",
    "image_shape",
    "is_list",
    "storage_of",
    "stored_values",
    "to_image",
]

_CHUNK_ROWS = 1024


def count_dims(feature: Any) -> int:
    """Returns how deeply the numbers of a column are nested: 2 for `Array2D`, 0 without lists or arrays of numbers."""
    import datasets

    if isinstance(feature, datasets.Array2D | datasets.Array3D):
        return len(feature.shape)
    dims = 0
    while isinstance(feature, list | datasets.List | datasets.LargeList):
        feature = feature[0] if isinstance(feature, list) else feature.feature
        dims += 1
    is_number = isinstance(feature, datasets.Value) and feature.dtype.rstrip("0123456789") in ("int", "uint", "float")
    return dims if is_number and dims <= 3 else 0


def is_list(kind: DataType) -> bool:
    """Returns whether an arrow type is one of the list types."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def storage_of(chunk: Array) -> Array:
    """Returns the storage of an Arrow extension array: nested lists for the types `Array2D` and `Array3D`.

    Any other array is returned unchanged.
    """
    import pyarrow as pa

    return chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk


def stored_values(column: ChunkedArray) -> Iterator[Any]:
    """Yields the values of a column one at a time: pixels as uncopied Arrow scalars, other values as Python objects."""
    for chunk in map(storage_of, column.chunks):
        for value in chunk:
            yield value if is_list(chunk.type) else value.as_py()


def are_pixels(value: Any) -> bool:
    """Returns whether a value that `stored_values` yields holds pixels."""
    import pyarrow as pa

    return isinstance(value, pa.ListScalar)


def image_shape(value: ListScalar) -> tuple[int, int, int]:
    """Returns height, width and channels of stored pixels.

    **Raises:** `ValueError` if the pixels do not have the shape of an image.
    """
    return _image_shape(_read_array(value).shape)


def to_image(value: ListScalar, scale: int) -> Image:
    """Returns stored pixels as a Pillow image.

    **Arguments:**

    - `scale`: the result of `find_scale` for the column.

    **Raises:** `ValueError` if the pixels do not have the shape of an image, or are out of range.
    """
    from PIL import Image

    array = _read_array(value)
    shape, limit = _image_shape(array.shape), 255 // scale
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= limit:
        raise ValueError(f"its values {low:g} to {high:g} are not within 0 to {limit}")
    pixels = np.rint(array * scale).astype(np.uint8).reshape(shape)
    if scale == 1 and not np.array_equal(array, pixels.reshape(array.shape)):
        raise ValueError("its values must be whole numbers from 0 to 255, because the column contains values above 1")
    return Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels)


def find_scale(rows: Dataset, column: str) -> int:
    """Returns the factor that scales a column's pixels to the range 0 to 255: 255 if all are floats in [0, 1], else 1.

    **Raises:** `InputError` if the first row does not have the shape of an image.
    """
    raw = rows.select_columns(column).with_format("arrow")
    is_first = True
    for start in range(0, len(rows), _CHUNK_ROWS):
        for chunk in raw[start : start + _CHUNK_ROWS][column].chunks:
            if is_first:
                _check_first(storage_of(chunk), column)
            is_first = False
            numbers = _flatten(storage_of(chunk)).drop_null().to_numpy(zero_copy_only=False)
            if numbers.dtype.kind != "f" or np.any(numbers > 1):
                return 1
    return 255


def _check_first(chunk: Array, column: str) -> None:
    first = next((value for value in chunk if value.is_valid), None)
    try:
        if first is not None:
            image_shape(first)
    except ValueError as error:
        raise InputError(
            f"the column `{column}` does not hold images: in the first row, {error}; choose another column with "
            "`image_column`."
        ) from error


def _flatten(values: Array) -> Array:
    while is_list(values.type):
        values = values.flatten()
    return values


def _read_array(value: ListScalar) -> np.ndarray:
    if not value.is_valid:
        raise ValueError("it holds no image")
    values: Any = value.values
    shape = [len(values)]
    while is_list(values.type):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        if values.null_count or np.any(lengths != lengths[:1]):
            raise ValueError("its lists differ in length")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = values.flatten()
    if values.null_count:
        raise ValueError("some of its values are missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns `(height, width, channels)`: a flat list of n*n or n*n*3 numbers is a square image, row by row."""
    if 0 in shape:
        raise ValueError("it is empty")
    if len(shape) == 1:
        for channels in (1, 3):
            side = math.isqrt(shape[0] // channels)
            if side * side * channels == shape[0]:
                return side, side, channels
        raise ValueError(f"the {shape[0]} values do not form a square image with 1 or 3 channels")
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if shape[2] not in (1, 3):
        hint = ", channels last" if shape[0] in (1, 3) else ""
        raise ValueError(f"the shape {shape} is not height, width and 1 or 3 channels{hint}")
    return shape[0], shape[1], shape[2]
