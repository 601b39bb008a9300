"""The image column and the label column of a table, and the labels as class numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from ..errors import InputError
from .pixels import count_dims

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pyarrow import ChunkedArray
else:
    Dataset = Features = ChunkedArray = Any

__all__ = ["MISSING", "find_image_column", "find_label_column", "read_labels"]

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
_PIXEL_NAMES = (*_IMAGE_NAMES, "pixels", "pixel_values", "x")
_LABEL_NAMES = ("label", "labels", "target", "targets", "class", "classes", "category", "cls", "y")

_MAX_NAME_BYTES = 1_000

#: The class number of a row without a label.
MISSING = -1


def find_image_column(features: Features, chosen: str | None = None) -> str:
    """Returns the chosen column, else the image column with a usual name, else the only image column."""
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    # In Parquet files that `datasets` did not write, a column of encoded images is not declared as images.
    images = images or [name for name, feature in features.items() if _holds_bytes(feature)]
    # A column of flat lists of numbers may hold anything, such as tokens, so its name must be usual for images.
    dims = {name: 0 if images else count_dims(feature) for name, feature in features.items()}
    images = images or [name for name in dims if dims[name] >= (1 if name.lower() in _PIXEL_NAMES else 2)]
    usual = [[name for name in images if name.lower() in names] for names in (_IMAGE_NAMES, _PIXEL_NAMES)]
    hint = "images must lie in class folders, or be a column of encoded bytes or of pixels"
    return _choose("image", [*usual, images], features, chosen, hint, _is_image)


def find_label_column(features: Features, chosen: str | Sequence[str] | None = None) -> str:
    """Returns the chosen column; by default, the only column with a usual name, else the only `ClassLabel` column, else
    the only column of a suitable type.

    **Raises:** `InputError` if there is no such column, or if a row has several labels.
    """
    import datasets

    if chosen is not None and not isinstance(chosen, str):
        raise InputError(
            f"`label_column` (={', '.join(map(str, chosen))}) must be the name of one column: a classifier learns one "
            "class per image, not several labels."
        )
    _check_one_label(features, chosen)
    candidates = [name for name, feature in features.items() if _can_be_label(feature)]
    classes = [name for name in candidates if isinstance(features[name], datasets.ClassLabel)]
    usual = [name for name in candidates if name.lower() in _LABEL_NAMES]
    both = [name for name in usual if name in classes]
    hint = (
        "a classifier needs at least two classes, as a column of numbers or names, or as one folder of images per "
        "class with all images at the same depth"
    )
    return _choose("label", [both, usual, classes, candidates], features, chosen, hint, _can_be_label)


def _check_one_label(features: Features, chosen: str | None) -> None:
    """Refuses a label column of lists (several labels per row, or one-hot vectors), whether chosen or found by name."""
    import datasets

    usual = [name for name in features if name.lower() in _LABEL_NAMES] if chosen is None else [chosen]
    lists = [name for name in usual if isinstance(features.get(name), list | datasets.List | datasets.LargeList)]
    if lists and len(lists) == len(usual):
        raise InputError(
            f"the column `{lists[0]}` cannot be the label column: it holds a list in each row, and a classifier learns "
            "one class per image; choose a column of single labels with `label_column`, or replace each one-hot "
            "vector by the position of its 1."
        )


def _choose(
    kind: str,
    ranks: list[list[str]],
    features: Features,
    chosen: str | None,
    hint: str,
    is_suitable: Callable[[Any], bool],
) -> str:
    """Returns `chosen` if given (it must be suitable), else the only name in the first non-empty list of `ranks`."""
    columns = ", ".join(f"`{name}`" for name in features)
    if chosen is not None and chosen not in features:
        raise InputError(f"`{kind}_column` (=`{chosen}`) must be one of the columns {columns}.")
    if chosen is not None and not is_suitable(features[chosen]):
        raise InputError(f"the column `{chosen}` cannot be the {kind} column: {hint}.")
    if chosen is not None:
        return chosen
    found = next((rank for rank in ranks if rank), [])
    if not found:
        raise InputError(f"no {kind} column among {columns}: {hint}.")
    if len(found) > 1:
        names = " and ".join(f"`{name}`" for name in found)
        raise InputError(f"{names} can each be the {kind} column: choose one with `{kind}_column`.")
    return found[0]


def _is_image(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Image) or _holds_bytes(feature) or count_dims(feature) > 0


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, dict):
        return _holds_bytes(feature.get("bytes")) and getattr(feature.get("path"), "dtype", "string") == "string"
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _can_be_label(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    kinds = ("int", "uint", "bool", "string", "large_string", "float")
    return isinstance(feature, datasets.Value) and feature.dtype.rstrip("0123456789") in kinds


def read_labels(
    splits: Mapping[str, Dataset], column: str
) -> tuple[tuple[str, ...], Mapping[str, Int32[np.ndarray, " rows"]]]:
    """Returns the class names and, for each split, the class number of each row (`MISSING` if a row has no label).

    A `ClassLabel` keeps its names and order. Plain numbers and strings are numbered in sorted order over all splits. A
    row has no label if its value is null, an empty string, or -1, which `datasets` writes for a missing label.

    **Raises:** `InputError` if fewer than two classes have rows, or if the column does not hold classes.
    """
    import datasets

    values = {name: split.select_columns(column).with_format("arrow")[:][column] for name, split in splits.items()}
    features = {name: split.features[column] for name, split in splits.items()}
    if all(isinstance(feature, datasets.ClassLabel) for feature in features.values()):
        names, numbers = _map_named_labels(values, {name: feature.names for name, feature in features.items()})
    else:
        _check_lengths(values, column)
        names, numbers = _number_plain_labels({name: each.to_pylist() for name, each in values.items()}, column)
    seen = {int(number) for array in numbers.values() for number in np.unique(array)} - {MISSING}
    if len(seen) < 2:
        only = f"only `{names[seen.pop()]}`" if seen else "none"
        raise InputError(f"a classifier needs at least two classes; the column `{column}` has {only}.")
    return names, numbers


def _map_named_labels(
    values: Mapping[str, ChunkedArray], names: Mapping[str, list[str]]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Renumbers the classes of all splits by one list of names: splits saved separately may order names differently."""
    all_names = tuple(dict.fromkeys(str(name) for split_names in names.values() for name in split_names))
    positions = {name: position for position, name in enumerate(all_names)}
    numbers = {}
    for split, column in values.items():
        # A missing label is -1; as an index, -1 selects the last entry of `mapping`, which is `MISSING`.
        mapping = np.array([*(positions[str(name)] for name in names[split]), MISSING], np.int32)
        raw = column.fill_null(MISSING).to_numpy()
        for label in (raw.max(initial=MISSING), raw.min(initial=MISSING)):
            if not MISSING <= label < len(mapping) - 1:
                raise InputError(
                    f"label {label} of split `{split}` is out of range: the split has {len(mapping) - 1} class names."
                )
        numbers[split] = mapping[raw]
    return all_names, numbers


def _check_lengths(values: Mapping[str, ChunkedArray], column: str) -> None:
    """Refuses strings that are too long for class names, before they are copied: each string may take megabytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    compute: Any = pc
    for array in values.values():
        is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        longest = compute.max(compute.binary_length(array)).as_py() if is_text else None
        if longest is not None and longest > _MAX_NAME_BYTES:
            raise InputError(
                f"`{column}` has a string of {longest:,} bytes, so it does not hold class names (at most "
                f"{_MAX_NAME_BYTES:,} bytes): choose another column with `label_column`."
            )


def _number_plain_labels(values: Mapping[str, list[Any]], column: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    # Missing numbers turn a column into floats with NaN for each missing number; `value == value` excludes NaN.
    distinct = {value for split_values in values.values() for value in split_values if value == value} - {None, ""}
    texts = {value for value in distinct if isinstance(value, str)}
    if texts not in (set(), distinct) or any(value % 1 for value in distinct - texts):
        raise InputError(f"the values of `{column}` must be whole numbers or names, the same kind in all splits.")
    # -1 usually marks a missing label; if -1 and 1 are the only labels, both are classes.
    ordered = sorted(distinct if distinct == {-1, 1} else distinct - {-1})
    if 2 < len(ordered) == sum(map(len, values.values())):
        raise InputError(
            f"`{column}` differs in every row, so it does not hold classes: choose another column with `label_column`."
        )
    names = tuple(str(int(value) if isinstance(value, float) and abs(value) < 2**53 else value) for value in ordered)
    lookup = {value: number for number, value in enumerate(ordered)}
    return names, {
        split: np.array([lookup.get(value, MISSING) for value in split_values], np.int32)
        for split, split_values in values.items()
    }
