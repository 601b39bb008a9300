"""Which column holds the images and which the labels, and the labels as class numbers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from ..errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from pyarrow import ChunkedArray
else:
    Dataset = Features = ChunkedArray = Any

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "target", "targets", "class", "classes", "category", "cls", "y")

#: The class number of a row without a label.
MISSING = -1


def find_image_column(features: Features, wanted: str | None = None) -> str:
    """The column of images: the wanted one, the one with a usual name, or the only one."""
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    # Parquet that was not written by `datasets` holds the files' bytes without saying that they are images.
    images = images or [name for name, feature in features.items() if _holds_bytes(feature)]
    usual = [name for name in images if name.lower() in _IMAGE_NAMES]
    hint = "images must lie in class folders, or be a column of encoded bytes"
    return _choose("image", [usual, images], features, wanted, hint)


def find_label_column(features: Features, wanted: str | None = None) -> str:
    """The column of labels: the wanted one, or the only one among those named so, `ClassLabel`s, or whatever can be."""
    import datasets

    candidates = [name for name, feature in features.items() if _can_be_label(feature)]
    classes = [name for name in candidates if isinstance(features[name], datasets.ClassLabel)]
    usual = [name for name in candidates if name.lower() in _LABEL_NAMES]
    both = [name for name in usual if name in classes]
    hint = (
        "a classifier needs at least two classes, as a column of numbers or names, or as one folder of images a class "
        "with all images at the same depth"
    )
    return _choose("label", [both, usual, classes, candidates], features, wanted, hint)


def _choose(kind: str, ranks: list[list[str]], features: Features, wanted: str | None, hint: str) -> str:
    """The one name of the first rank that has any."""
    columns = ", ".join(f"`{name}`" for name in features)
    if wanted is not None and wanted not in features:
        raise InputError(f"`{kind}_column` (=`{wanted}`) must be one of the columns {columns}.")
    if wanted is not None:
        return wanted
    found = next((rank for rank in ranks if rank), [])
    if not found:
        raise InputError(f"no {kind} column among {columns}: {hint}.")
    if len(found) > 1:
        names = " and ".join(f"`{name}`" for name in found)
        raise InputError(f"{names} can each be the {kind} column: choose one with `{kind}_column`.")
    return found[0]


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature
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
    """The class names, and the class number of each row by split; `MISSING` where a row has no label.

    A `ClassLabel` keeps its names and order. Numbers without names, and text, are numbered in sorted order over all
    splits. A row is without a label where it holds nothing, an empty text, or -1 (what `datasets` writes for it).

    **Raises:** `InputError` when fewer than two classes have rows, or when the column cannot be one of classes.
    """
    import datasets

    values = {name: split.select_columns(column).with_format("arrow")[:][column] for name, split in splits.items()}
    features = {name: split.features[column] for name, split in splits.items()}
    if all(isinstance(feature, datasets.ClassLabel) for feature in features.values()):
        names, numbers = _named(values, {name: feature.names for name, feature in features.items()})
    else:
        names, numbers = _numbered({name: each.to_pylist() for name, each in values.items()}, column)
    seen = {int(each) for array in numbers.values() for each in np.unique(array)} - {MISSING}
    if len(seen) < 2:
        only = f"only `{names[seen.pop()]}`" if seen else "none"
        raise InputError(f"a classifier needs at least two classes; the rows' `{column}` has {only}.")
    return names, numbers


def _named(
    values: Mapping[str, ChunkedArray], names: Mapping[str, list[str]]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Splits saved one by one may each have their own order of names: the first split's order is taken for all."""
    all_names = tuple(dict.fromkeys(name for split in names.values() for name in split))
    numbers = {}
    for split, column in values.items():
        own = np.array([all_names.index(name) for name in names[split]], np.int32)
        raw = column.fill_null(MISSING).to_numpy()
        if raw.max(initial=MISSING) >= len(own):
            raise InputError(f"label {raw.max()} of split `{split}` is beyond its {len(own)} class names.")
        numbers[split] = np.where(raw < 0, MISSING, own[raw]).astype(np.int32)
    return all_names, numbers


def _numbered(values: Mapping[str, list[Any]], column: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    # A table with gaps in its numbers has them as floats, and NaN, which does not equal itself, for a gap.
    distinct = {value for each in values.values() for value in each if value == value} - {None, ""}
    text = {value for value in distinct if isinstance(value, str)}
    if text not in (set(), distinct) or any(value % 1 for value in distinct - text):
        raise InputError(f"the values of `{column}` must be whole numbers or names, the same kind in all splits.")
    # -1 stands for "no label", but -1 and 1 alone are an old way to write two classes.
    ordered = sorted(distinct if distinct == {-1, 1} else distinct - {-1})
    if 2 < len(ordered) == sum(len(each) for each in values.values()):
        raise InputError(f"`{column}` differs in every row, so it is no class: choose another with `label_column`.")
    names = tuple(str(int(value) if isinstance(value, float) else value) for value in ordered)
    lookup = {value: number for number, value in enumerate(ordered)}
    return names, {
        split: np.array([lookup.get(value, MISSING) for value in each], np.int32) for split, each in values.items()
    }
