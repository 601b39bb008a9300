"""Chooses the training split and the test split of a source."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, printable
from .columns import MISSING

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["TEST_SPLITS", "choose_test", "choose_train"]

#: Names of test splits, in order of preference.
TEST_SPLITS = ("test", "validation", "valid", "val")


def choose_train(source: str, rows: Mapping[str, int], test_split: str | None = None) -> str:
    """Returns the name of the training split: `train`, or the only split besides the test split.

    **Arguments:**

    - `source`: the source's name, for messages.
    - `rows`: the number of rows of each split.
    - `test_split`: the test split that the caller chose.

    **Raises:** `InputError` if there is no training split, or if `test_split` is unknown, has no rows, or is the only
    split that has rows.
    """
    filled = [split for split, count in rows.items() if count > 0]
    names = ", ".join(f"`{split}`" for split in filled)
    if not filled:
        raise InputError(f"`{source}` has no rows.")
    if test_split is not None and (test_split not in filled or len(filled) == 1):
        raise InputError(
            f"`test_split` (=`{test_split}`) must be a split with rows, and another split must have rows to train on; "
            f"`{source}` has {names}."
        )
    others = [split for split in filled if split != test_split]
    train = others[0] if len(others) == 1 else "train"
    if train not in others:
        if test_split == "train":
            raise InputError(
                f"`test_split` (=`train`) leaves no split called `train` among the other {len(others)} splits: choose "
                f"another test split of {names}."
            )
        raise InputError(
            f"`{source}` has the splits {names}, and none of them is called `train`: name the training split `train`."
        )
    return train


def choose_test(
    source: str, splits: Mapping[str, Dataset], train: str, label_column: str, test_split: str | None = None
) -> str | None:
    """Returns the name of the split to test on, or `None` if a part of the training split is to be held out.

    A split without labels, which is common in competitions, is skipped; a line on standard error says so.

    **Raises:** `InputError` if the caller chose a split without labels.
    """
    usual = [split for split in TEST_SPLITS if split != train and len(splits.get(split, ())) > 0]
    unlabeled = []
    for split in usual if test_split is None else [test_split]:
        if _has_labels(splits[split], splits[train], label_column):
            break
        unlabeled.append(split)
    else:
        split = None
    if unlabeled and test_split is not None:
        raise InputError(f"`test_split` (=`{test_split}`) of `{source}` has no labels in `{label_column}`.")
    if unlabeled:
        names = " and ".join(f"`{name}`" for name in unlabeled)
        instead = f"a part of `{train}` is held out" if split is None else f"`{split}` is used"
        have = "has" if len(unlabeled) == 1 else "have"
        line = f"{names} of {source} {have} no labels: {instead} for testing"
        print(printable(line), file=sys.stderr, flush=True)
    return split


def _has_labels(rows: Dataset, train: Dataset, column: str) -> bool:
    if column not in rows.column_names:
        return False
    labels = _read_values(rows, column)
    if np.any(labels != MISSING):
        return True
    # -1 usually marks a missing label; if -1 and 1 are the only labels, both are classes.
    return len(labels) > 0 and set(np.unique(_read_values(train, column)).tolist()) == {-1, 1}


def _read_values(rows: Dataset, column: str) -> np.ndarray:
    """Returns the labels in a column as numbers; leaves out null and NaN.

    Strings become positive numbers, except that an empty string becomes `MISSING`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    compute: Any = pc
    values: Any = rows.select_columns(column).with_format("arrow")[:][column].drop_null()
    if pa.types.is_null(values.type):
        return np.zeros(0, np.int32)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        lengths = compute.binary_length(values).to_numpy().astype(np.int64)
        return np.where(lengths > 0, lengths + 1, MISSING)
    numbers = values.to_numpy()
    return numbers[numbers == numbers]  # NaN is a missing number.
