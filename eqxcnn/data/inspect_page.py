"""The text that `python -m eqxcnn.data` prints about a data set."""

from collections.abc import Sequence

from ..errors import printable
from .inspect_records import DataReport, ImageRow, PartReport, Size
from .scan import Unreadable

__all__ = ["format_report"]

_MAX_NAME = 60
_MAX_COLUMNS = 30
_MAX_CLASSES = 100
_MAX_BAD = 5
_USES = {
    "train": "training",
    "test": "test",
    "train and test": "training and test (a part is held out)",
    "none": "not used",
}
_KINDS = {
    "train": "repeated in training",
    "test": "repeated in test",
    "leaked": "test images also in training",
    "conflicting": "with different labels",
}


def format_report(report: DataReport) -> str:
    """Returns the report as aligned tables, without a newline at the end; names are made printable and shortened."""
    used = len(report.splits), len(report.columns), len(report.class_names)
    splits = [(_name(split.name), f"{split.rows:,}", _USES[split.use]) for split in report.splits[:_MAX_COLUMNS]]
    columns = [(_name(each.name), _name(each.type), each.role or "") for each in report.columns[:_MAX_COLUMNS]]
    counts = zip(*(part.class_counts for part in report.parts.values()), strict=True)
    classes = [(_name(name), *map(_count, pair)) for name, pair in zip(report.class_names, counts, strict=True)]
    sections = [
        f"{_name(report.name)}: {sum(split.rows for split in report.splits):,} rows, {used[2]:,} classes",
        _table(("split", ">rows", "used for"), splits, used[0]),
        _table(("column", "type", "used as"), columns, used[1]),
        _table(("class", ">train", ">test"), classes[:_MAX_CLASSES], used[2]),
        _table(("images", ">train", ">test"), _describe_images(list(report.parts.values()))),
        _format_pixels(report),
        *(_format_bad(part.split, part.unreadable) for part in report.parts.values() if part.unreadable),
        _format_repeats(report),
    ]
    return "\n\n".join(sections)


def _describe_images(parts: Sequence[PartReport]) -> list[tuple[str, ...]]:
    """Returns one row per property, with a cell for each part."""
    cells = {
        "rows": [_count(part.rows) for part in parts],
        "decoded": [_count(part.decoded) for part in parts],
        "without a label": [_count(part.unlabeled) for part in parts],
        "unreadable": [_count(len(part.unreadable)) for part in parts],
        "gray": [_count(part.gray) for part in parts],
        "color": [_count(part.color) for part in parts],
    }
    sizes = [part.sizes for part in parts]
    cells["different sizes"] = ["-" if size is None else _count(size.distinct) for size in sizes]
    for name in ("smallest", "median", "largest"):
        cells[f"{name} size"] = ["-" if size is None else _size(getattr(size, name)) for size in sizes]
    for rank in range(max((len(size.frequent) for size in sizes if size is not None and size.distinct > 1), default=0)):
        chosen = [None if size is None else next(iter(size.frequent[rank:]), None) for size in sizes]
        # Only the first of these rows shows a name; the keys of the other rows are spaces, in different numbers.
        name = "most frequent sizes" if rank == 0 else " " * rank
        cells[name] = ["" if pair is None else f"{_size(pair[0])} ({pair[1]:,})" for pair in chosen]
    return [(name.strip(), *row) for name, row in cells.items()]


def _format_pixels(report: DataReport) -> str:
    if report.pixels is None:
        return "no training image with a label can be read, so there are no mean and std"
    mean, std = (" ".join(f"{value:.4f}" for value in each) for each in (report.pixels.mean, report.pixels.std))
    return f"training pixels at {_size(report.pixels.size)}, on the scale [0, 1]: mean {mean}, std {std}"


def _format_bad(split: str, bad: Sequence[Unreadable]) -> str:
    lines = [f"  row {each.row:,}{_file(each.file)}: {printable(each.reason)}" for each in bad[:_MAX_BAD]]
    more = [f"  ... and {len(bad) - _MAX_BAD:,} more (`--json` lists all)"] if len(bad) > _MAX_BAD else []
    return "\n".join([f"unreadable images of split {_name(split)}:", *lines, *more])


def _format_repeats(report: DataReport) -> str:
    rows = [(_KINDS[kind], _count(each.same_file), _count(each.same_pixels)) for kind, each in report.repeats.items()]
    sections = [_table(("repeated images", ">same file", ">same pixels"), rows)]
    if any(part.decoded < part.rows for part in report.parts.values()):
        sections[0] += "\n(among the decoded rows only)"
    for kind, each in report.repeats.items():
        if each.examples:
            lines = ["  " + " = ".join(map(_format_row, rows)) for rows in each.examples]
            sections.append("\n".join([f"{_KINDS[kind]}, for example:", *lines]))
    return "\n\n".join(sections)


def _format_row(row: ImageRow) -> str:
    label = "no label" if row.class_name is None else _name(row.class_name)
    return f"{_name(row.split)} row {row.row:,}{_file(row.file)} ({label})"


def _file(name: str | None) -> str:
    return "" if name is None else f" {printable(name)}"


def _name(text: str) -> str:
    return printable(text, _MAX_NAME)


def _count(number: int) -> str:
    return f"{number:,}"


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> str:
    """Returns an aligned table; columns whose head starts with `>` are right-aligned.

    **Arguments:**

    - `total`: the total number of rows, if `rows` may contain only the first few.
    """
    body = [[head.removeprefix(">") for head in heads], *rows]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=True)
        ).rstrip()
        for row in body
    ]
    more = [] if total is None or total <= len(rows) else [f"... and {total - len(rows):,} more (`--json` lists all)"]
    return "\n".join([*lines, *more])
