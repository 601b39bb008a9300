"""Finds images that occur more than once: within the training or test images, in both, or with different labels."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from .columns import MISSING
from .dataset import TableDataSet
from .decode import fetch
from .inspect_records import ImageRow, Repeats
from .scan import DIGEST_BYTES, Scan, file_of

__all__ = ["find_repeats"]

_EXAMPLES = 3
_ROWS_PER_EXAMPLE = 4


class _Rows(NamedTuple):
    """For each readable image of both parts: whether it is a test image, its row number, and its class number."""

    is_test: Bool[np.ndarray, " n"]
    numbers: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]


def find_repeats(data_set: TableDataSet, scans: Mapping[str, Scan]) -> Mapping[str, Repeats]:
    """Returns the repeated images by kind: `train`, `test`, `leaked` and `conflicting`; see `DataReport`.

    **Arguments:**

    - `scans`: the scans of the parts `train` and `test`.
    """
    both, kept = (scans["train"], scans["test"]), [scan.is_readable for scan in (scans["train"], scans["test"])]
    is_test = np.concatenate([np.full(int(kept[0].sum()), False), np.full(int(kept[1].sum()), True)])
    numbers, labels, files, pixels = (
        np.concatenate([getattr(scan, name)[good] for scan, good in zip(both, kept, strict=True)])
        for name in ("numbers", "labels", "files", "pixels")
    )
    rows = _Rows(is_test, numbers, labels)
    groups = _number_groups(pixels)
    by_file, by_pixels = _classify(_number_groups(files), rows), _classify(groups, rows)
    return {
        kind: Repeats(
            same_file=int(by_file[kind].sum()),
            same_pixels=int(by_pixels[kind].sum()),
            examples=_show_examples(data_set, kind, by_pixels[kind], groups, rows),
        )
        for kind in by_pixels
    }


def _number_groups(digests: UInt8[np.ndarray, "n 16"]) -> Int[np.ndarray, " n"]:
    """Returns a number for each digest; equal digests have the same number."""
    whole = np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").reshape(-1)
    return np.unique(whole, return_inverse=True)[1].reshape(-1)


def _classify(groups: Int[np.ndarray, " n"], rows: _Rows) -> dict[str, Bool[np.ndarray, " n"]]:
    """Returns, for each kind of repeat, a mask of the rows that are counted."""
    low, high = np.full(len(groups), np.iinfo(np.int32).max), np.full(len(groups), MISSING)
    has_label = rows.labels != MISSING
    np.minimum.at(low, groups[has_label], rows.labels[has_label])
    np.maximum.at(high, groups[has_label], rows.labels[has_label])
    return {
        "train": _repeats_earlier(groups, ~rows.is_test),
        "test": _repeats_earlier(groups, rows.is_test),
        "leaked": rows.is_test & np.isin(groups, groups[~rows.is_test]),
        "conflicting": has_label & (low[groups] < high[groups]),
    }


def _repeats_earlier(groups: Int[np.ndarray, " n"], is_inside: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    repeats = is_inside.copy()
    inside = np.flatnonzero(is_inside)
    repeats[inside[np.unique(groups[inside], return_index=True)[1]]] = False
    return repeats


def _show_examples(
    data_set: TableDataSet, kind: str, is_repeat: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"], rows: _Rows
) -> tuple[tuple[ImageRow, ...], ...]:
    """For each of the first few repeated images, returns some of the rows of the data set that contain it."""
    # If the repeats are within one part, the examples show only rows of that part.
    is_shown = {"train": ~rows.is_test, "test": rows.is_test}.get(kind, np.ones_like(rows.is_test))
    first = list(dict.fromkeys(groups[is_repeat].tolist()))[:_EXAMPLES]
    return tuple(
        tuple(
            _show_row(data_set, rows, int(index))
            for index in _choose(np.flatnonzero(is_shown & (groups == group)), rows)
        )
        for group in first
    )


def _choose(indices: Int[np.ndarray, " k"], rows: _Rows) -> Int[np.ndarray, " j"]:
    """Returns a few of the rows; prefers rows that differ in part or label."""
    kinds = np.stack([rows.is_test[indices], rows.labels[indices]])
    distinct = np.sort(np.unique(kinds, axis=1, return_index=True)[1])
    others = np.setdiff1d(np.arange(len(indices)), distinct)
    return indices[np.sort(np.concatenate([distinct, others])[:_ROWS_PER_EXAMPLE])]


def _show_row(data_set: TableDataSet, rows: _Rows, index: int) -> ImageRow:
    part = data_set.parts["test" if rows.is_test[index] else "train"]
    number, label = int(rows.numbers[index]), int(rows.labels[index])
    raw = part.rows.select_columns(data_set.image_column).with_format("arrow")
    (value,) = fetch(raw, data_set.image_column, np.array([number]))
    name = None if label == MISSING else data_set.info.class_names[label]
    return ImageRow(part.split, number, name, file_of(value))
