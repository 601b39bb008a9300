"""`inspect_data`: describes the content of a data set; decodes each image once, and keeps none."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, printable
from ..images.preprocess import Preprocess
from .columns import MISSING
from .dataset import TableDataSet
from .inspect_records import Column, DataReport, PartReport, PixelStatistics, Size, Sizes, SplitUse
from .parts import Part
from .repeats import find_repeats
from .scan import Scan, scan_part

if TYPE_CHECKING:
    from datasets import Features
else:
    Features = Any

__all__ = ["inspect_data"]

#: The size at which pixels are measured if the images differ in size.
_MEASURED_SIZE = (64, 64)
_FREQUENT_SIZES = 5


def inspect_data(
    data_set: TableDataSet,
    *,
    image_size: Size | None = None,
    max_rows: int | None = None,
    progress: bool = True,
) -> DataReport:
    """Describes a data set: splits, columns, classes, sizes, unreadable images, repeated images, and pixel statistics.

    All images are decoded once, in threads. Only a few dozen bytes per image are kept.

    **Arguments:**

    - `data_set`: an opened data set of files or tables; see `open_source` and `from_dataset`.
    - `image_size`: the size at which pixels are measured; by default the size that the images share, else 64x64.
    - `max_rows`: the largest number of rows to decode in each part; these rows are spread evenly over the part. By
        default, all rows are decoded.
    - `progress`: whether to show a progress bar on standard error.

    **Raises:** `InputError` for arguments out of range, or if the rows of a table cannot be read.
    """
    if max_rows is not None and max_rows < 1:
        raise InputError(f"`max_rows` (={max_rows}) must be 1 or more")
    size, info = image_size or data_set.own_size or _MEASURED_SIZE, data_set.info
    wanted = Preprocess(size, info.channels)  # Checks the size.
    scans = {
        name: scan_part(
            part,
            data_set.image_column,
            data_set.scale,
            max_rows=max_rows,
            measure=(*wanted.size, wanted.channels) if name == "train" else None,
            title=printable(f"{info.name}/{name}") if progress else None,
        )
        for name, part in data_set.parts.items()
    }
    reports = {name: _report_part(part, scans[name], len(info.class_names)) for name, part in data_set.parts.items()}
    features = data_set.parts["train"].rows.features
    return DataReport(
        name=info.name,
        source=info.source,
        class_names=info.class_names,
        fingerprint=info.fingerprint,
        splits=_list_splits(data_set),
        columns=_list_columns(features, data_set.image_column, data_set.label_column),
        parts=reports,
        repeats=find_repeats(data_set, scans),
        pixels=_measure(scans["train"], size),
    )


def _list_splits(data_set: TableDataSet) -> tuple[SplitUse, ...]:
    train, test = data_set.parts["train"].split, data_set.parts["test"].split
    uses: dict[str, Any] = {train: "train", test: "test"} if train != test else {train: "train and test"}
    return tuple(SplitUse(name, rows, uses.get(name, "none")) for name, rows in data_set.info.splits.items())


def _list_columns(features: Features, image_column: str, label_column: str) -> tuple[Column, ...]:
    roles: dict[str, Any] = {label_column: "label", image_column: "image"}
    return tuple(Column(name, _describe_type(feature), roles.get(name)) for name, feature in features.items())


def _describe_type(feature: Any) -> str:
    import datasets

    match feature:
        case datasets.ClassLabel():
            return f"ClassLabel, {len(feature.names)} classes"
        case datasets.Value():
            return feature.dtype
        case datasets.Array2D() | datasets.Array3D():
            return f"{type(feature).__name__}, {'x'.join(map(str, feature.shape))}, {feature.dtype}"
    return type(feature).__name__


def _report_part(part: Part, scan: Scan, num_classes: int) -> PartReport:
    gray = int(scan.is_gray.sum())
    return PartReport(
        split=part.split,
        rows=len(part.numbers),
        decoded=len(scan.numbers),
        class_counts=tuple(np.bincount(part.labels[part.labels != MISSING], minlength=num_classes).tolist()),
        unlabeled=int((part.labels == MISSING).sum()),
        gray=gray,
        color=int(scan.is_readable.sum()) - gray,
        sizes=_summarize_sizes(map(tuple, scan.sizes[scan.is_readable].tolist())),
        unreadable=scan.unreadable,
    )


def _summarize_sizes(sizes: Iterable[Size]) -> Sizes | None:
    counts = Counter(sizes)
    if not counts:
        return None
    ordered = sorted(counts, key=lambda size: (size[0] * size[1], size))
    ends = np.cumsum([counts[size] for size in ordered])
    median = ordered[int(np.searchsorted(ends, (ends[-1] + 1) // 2))]
    return Sizes(len(counts), ordered[0], median, ordered[-1], tuple(counts.most_common(_FREQUENT_SIZES)))


def _measure(scan: Scan, size: Size) -> PixelStatistics | None:
    if scan.count == 0:
        return None
    mean = scan.sums / scan.count
    std = np.sqrt(np.maximum(scan.squares / scan.count - mean**2, 0))
    return PixelStatistics(size, tuple((mean / 255).tolist()), tuple((std / 255).tolist()))
