"""Data sets passed from Python: tables and streams of `datasets`, and everything else that `as_data_set` accepts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .arrays import from_arrays
from .dataset import from_tables
from .records import DataSet
from .sources import Source, check_name
from .tables import are_tables, to_tables

__all__ = ["as_data_set", "from_dataset"]


def from_dataset(
    rows: Any,
    *,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    test_split: str | None = None,
    name: str = "own",
    test_fraction: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """Makes a data set from tables of the `datasets` library.

    **Arguments:**

    - `rows`: a `Dataset` or a `DatasetDict`; or an `IterableDataset` or `IterableDatasetDict`, which is read into
        memory once, with its images still encoded. The images may also be a column of pixels.
    - `image_column`, `label_column`, `test_split`, `test_fraction`, `seed`: see `open_source`.
    - `name`: the data set's name, which becomes part of the names of runs.

    **Raises:** `InputError` if the tables cannot be used.
    """
    check_name(name)
    choices = Source(image_column=image_column, label_column=label_column, test_split=test_split, rows=lambda: rows)
    tables = to_tables(rows, choices, name)
    made = from_tables(tables, choices, name=name, source=name, test_fraction=test_fraction, seed=seed)
    return replace(made, info=replace(made.info, source="own"))


def as_data_set(value: Any) -> DataSet:
    """Returns `value` if it is a data set; otherwise makes a data set from tables, or from a pair of images and labels.

    **Raises:** `InputError` for anything else.
    """
    if isinstance(value, DataSet):
        return value
    if are_tables(value):
        return from_dataset(value)
    if isinstance(value, tuple | list) and len(value) == 2:
        return from_arrays(*value)
    hint = ": give a name or a folder as the recipe's `data`" if isinstance(value, str) else ""
    raise InputError(
        "`data` must be a pair of images and labels, a `Dataset` or `DatasetDict` of `datasets`, or the "
        f"result of `eqxcnn.data.from_arrays` or `from_dataset`, not a `{type(value).__qualname__}`{hint}."
    )
