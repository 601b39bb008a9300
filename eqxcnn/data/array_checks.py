"""Checks of image arrays and label arrays; each error is one sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from ..errors import InputError
from .records import ImageArray

__all__ = ["check_images", "check_same_kind", "check_unmasked", "name_classes", "number_labels"]


def check_images(images: Any, what: str) -> ImageArray:
    """Returns images as `uint8` or float32 `[n h w c]`, without a copy if they already have that form.

    **Raises:** `InputError` for other shapes, types or values; the message calls the images `what`.
    """
    array = _to_array(images, what)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        is_first = array.ndim == 4 and array.shape[1] in (1, 3)
        hint = ": move the channels last with `np.moveaxis(images, 1, -1)`" if is_first else ""
        raise InputError(
            f"the {what} of shape {np.shape(images)} must be `[n h w]`, or `[n h w c]` with 1 or 3 channels{hint}."
        )
    if array.size == 0:
        raise InputError(f"the {what} of shape {array.shape} are empty.")
    if array.dtype == np.uint8:
        return array
    # JAX's `bfloat16` does not have the dtype kind `f` of NumPy's floats.
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(
            f"the {what} of type {array.dtype} must be `uint8`, from 0 to 255, or floating point, from 0 to 1."
        )
    array = np.asarray(array, np.float32)
    low, high = float(array.min()), float(array.max())
    if np.isnan(low):
        raise InputError(f"the {what} contain NaN: replace it, or leave these images out.")
    if not 0 <= low <= high <= 1:
        hint = ": divide them by 255, or give `uint8`" if low >= 0 and 1 < high <= 255 else ""
        raise InputError(f"the {what} in floating point have values from {low:g} to {high:g}, not from 0 to 1{hint}.")
    return array


def check_same_kind(train: np.ndarray, test: np.ndarray) -> None:
    """Checks that test images have the size, channels and type of the training images.

    **Raises:** `InputError`.
    """
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        ours, theirs = (f"{'x'.join(map(str, each.shape[1:]))} of type {each.dtype}" for each in (train, test))
        raise InputError(f"the test images are {theirs}, and the training images {ours}: convert one of the sets.")


def name_classes(labels: Any, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the class names: `class_names` if given, else the distinct labels in sorted order.

    **Raises:** `InputError` for labels of a wrong type, for integers with gaps, or for fewer than two classes.
    """
    if class_names is not None:
        names = tuple(class_names)
        if isinstance(class_names, str) or not all(isinstance(name, str) and name for name in names):
            raise InputError("`class_names` must be a list of strings that are not empty.")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"`class_names` has `{twice}` twice: each class needs its own name.")
    else:
        values = _check_labels(labels, "labels")
        distinct = np.unique(values).tolist()
        if values.dtype.kind != "T" and distinct != list(range(len(distinct))):
            gap = next((number for number, value in enumerate(distinct) if value != number), 0)
            raise InputError(
                f"the labels must be integers from 0 to k - 1, but they range from {distinct[0]} to {distinct[-1]} and "
                f"none is {gap}: number the classes without gaps, or give `class_names`."
            )
        names = tuple(map(str, distinct))
    if len(names) < 2:
        raise InputError(f"a classifier needs at least two classes, but got {', '.join(names) or 'none'}.")
    return names


def number_labels(labels: Any, names: tuple[str, ...], what: str, images: int) -> Int32[np.ndarray, " n"]:
    """Returns the class number of each label.

    **Arguments:**

    - `names`: the class names; a label is a class name or its position in `names`.
    - `what`: the name of the labels in error messages.
    - `images`: the number of images, which must equal the number of labels.

    **Raises:** `InputError`.
    """
    values = _check_labels(labels, what)
    if len(values) != images:
        raise InputError(f"there are {images:,} images and {len(values):,} {what}: give one label per image.")
    if values.dtype.kind != "T":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= len(names):
            wrong = low if low < 0 else high
            raise InputError(f"the {what} contain {wrong}, but the {len(names)} classes are 0 to {len(names) - 1}.")
        return values.astype(np.int32)
    distinct, inverse = np.unique(values, return_inverse=True)
    positions = {name: position for position, name in enumerate(names)}
    if unknown := [text for text in distinct.tolist() if text not in positions]:
        raise InputError(f"the {what} contain `{unknown[0]}`, which is not one of the {len(names)} classes.")
    return np.array([positions[text] for text in distinct.tolist()], np.int32)[inverse]


def _check_labels(labels: Any, what: str) -> np.ndarray:
    """Returns labels as integers, or as NumPy strings of variable length."""
    array = _to_array(labels, what)
    if array.ndim != 1:
        hint = ": for one-hot vectors, give `labels.argmax(axis=1)`" if array.ndim == 2 else ""
        raise InputError(f"the {what} of shape {array.shape} must be one integer or string per image{hint}.")
    if array.size == 0:
        raise InputError(f"the {what} are empty.")
    if (array.dtype.kind == "O" and all(isinstance(value, str) for value in array)) or array.dtype.kind in "UT":
        try:
            texts = array.astype(np.dtypes.StringDType())
        except (TypeError, ValueError) as error:
            raise InputError(f"the {what} contain a string that is not valid Unicode ({error}): replace it.") from error
        if np.any(texts == ""):
            raise InputError(f"the {what} contain an empty string: leave out images without a label.")
        return texts
    if array.dtype.kind not in "iu":
        kind = "mixed types" if array.dtype.kind == "O" else f"type {array.dtype}"
        raise InputError(f"the {what} have {kind}, but must be integers from 0 to k - 1 for k classes, or strings.")
    return array


def check_unmasked(values: Any, what: str) -> None:
    """Refuses masked values, because converting a masked array exposes the numbers behind the mask.

    **Raises:** `InputError`.
    """
    if np.ma.is_masked(values):
        raise InputError(
            f"{what} contain masked values: replace them with `numpy.ma.filled`, or leave their images out."
        )


def _to_array(values: Any, what: str) -> np.ndarray:
    check_unmasked(values, f"the {what}")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"the {what} cannot be converted to an array ({reason}).") from error
