"""Tables and streams of the `datasets` library that were made in Python."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError, printable
from .columns import find_image_column, find_label_column
from .sources import Source
from .splits import TEST_SPLITS

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
else:
    Dataset = IterableDataset = Any

__all__ = ["are_tables", "to_tables"]

_BATCH_ROWS = 256
_SECONDS_BETWEEN_LINES = 5.0


def are_tables(value: Any) -> bool:
    """Returns whether a value is a table or a stream of `datasets`, or a mapping from split names to such values."""
    import datasets

    values = list(value.values()) if isinstance(value, Mapping) else [value]
    return bool(values) and all(isinstance(each, datasets.Dataset | datasets.IterableDataset) for each in values)


def to_tables(value: Any, choices: Source, name: str) -> Mapping[str, Dataset]:
    """Returns tables by split; a table without splits becomes `train`, and streams are read into memory.

    **Arguments:**

    - `value`: a `Dataset`, an `IterableDataset`, or a mapping of these by split.
    - `choices`: the columns and the test split to use. Other splits of streams are not read, and neither are the other
      columns of a stream that declares `features`.
    - `name`: the data set's name, for messages.

    **Raises:** `InputError` for a value of a wrong type, or for a table with a transform.
    """
    import datasets

    if not are_tables(value):
        kind = type(value).__qualname__
        raise InputError(f"the data `{name}` must be a `Dataset` or `DatasetDict` of `datasets`, not a `{kind}`.")
    splits = {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {"train": value}
    for split, rows in splits.items():
        if isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom":
            raise InputError(
                f"split `{split}` of `{name}` has a transform, which training would ignore: apply it with `map`, or "
                "remove it with `reset_format()` and pass random transforms as `augment`."
            )
    wanted = {"train", *(TEST_SPLITS if choices.test_split is None else [choices.test_split])}
    is_wanted = len(splits) <= 2 or "train" not in splits
    return {
        split: rows if isinstance(rows, datasets.Dataset) else _read_stream(rows, choices, f"{name}/{split}")
        for split, rows in splits.items()
        if isinstance(rows, datasets.Dataset) or is_wanted or split in wanted
    }


def _read_stream(rows: IterableDataset, choices: Source, title: str) -> Dataset:
    """Reads a stream to its end; encoded images stay encoded."""
    import datasets

    features = rows.features
    if features is not None:
        columns = [
            find_image_column(features, choices.image_column),
            find_label_column(features, choices.label_column),
        ]
        rows = rows.select_columns(columns).decode(False)
        features = datasets.Features({column: features[column] for column in columns})
    print(printable(f"reading {title} into memory ..."), file=sys.stderr, flush=True)
    pieces: list[Dataset] = []
    count, said = 0, time.monotonic()
    for batch in rows.with_format(None).iter(_BATCH_ROWS):
        try:
            piece = datasets.Dataset.from_dict(dict(batch), features=features)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"rows {count} to {count + _BATCH_ROWS} of `{title}` have values of different types ({reason}): "
                "declare `features`."
            ) from error
        # If no types are declared, the types of the first rows apply to all rows.
        features = features or piece.features
        pieces.append(piece)
        count += len(piece)
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            print(printable(f"reading {title} into memory: {count:,} rows ..."), file=sys.stderr, flush=True)
            said = time.monotonic()
    return datasets.concatenate_datasets(pieces) if pieces else datasets.Dataset.from_dict({})
