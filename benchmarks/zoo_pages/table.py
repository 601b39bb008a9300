"""Renders `docs/assets/zoo.html`, one table of all models that can be sorted and filtered offline."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from eqxcnn.weights.published import Published

from ..markdown import format_number
from .rows import TASKS, Row, Speeds

__all__ = ["COLUMNS", "format_table_page"]

_TEMPLATE = Path(__file__).with_name("table.html")


class Column(NamedTuple):
    """A column: its head, whether its cells are numbers, and the direction in which the first click on it sorts."""

    head: str
    is_number: bool = True
    first: Literal["ascending", "descending"] = "ascending"


#: The columns, in the order of `_cells`.
COLUMNS = (
    Column("Model", is_number=False), Column("Family", is_number=False), Column("Published for", is_number=False),
    Column("Input"), Column("Parameters"), Column("Multiply-adds (M)"), Column("Weights", is_number=False),
    Column("Test data", is_number=False), Column("Accuracy (%)", first="descending"),
    Column("Accuracy, one view (%)", first="descending"), Column("Recipe", is_number=False),
    Column("Training (s/epoch)"), Column("Training (images/s)", first="descending"),
    Column("Prediction, 64 images (images/s)", first="descending"),
    Column("Prediction, 1 image (images/s)", first="descending"),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the number for sorting (in columns of numbers), and the address of its link."""

    text: str
    number: float | None = None
    link: str | None = None


def format_table_page(rows: Sequence[Row], speeds: Speeds) -> str:
    """Returns the page: a plain table, and a script that adds sorting and filters."""
    parts = {
        "count": str(len(rows)),
        "measured": _describe_speeds(speeds),
        "families": _format_options(sorted({row.family for row in rows})),
        "data": _format_options(dict.fromkeys(_task_title(row) for row in rows)),
        "heads": "".join(map(_format_head, COLUMNS)),
        "rows": "".join(map(_format_row, rows)),
    }
    return re.sub(r"<!-- (\w+) -->", lambda mark: parts[mark[1]], _TEMPLATE.read_text("utf-8"))


def _describe_speeds(speeds: Speeds) -> str:
    if speeds.source is None:
        return "They have not been measured yet."
    command, environment = speeds.source
    return f"<code>{escape(command)}</code>, on {escape(environment.replace('**', ''))}."


def _format_options(names: Sequence[str] | dict[str, None]) -> str:
    return "".join(f"<option>{escape(name)}</option>\n" for name in names)


def _format_head(column: Column) -> str:
    kind = ' class="number"' if column.is_number else ""
    return f'<th scope="col"{kind} data-first="{column.first}">{escape(column.head)}</th>\n'


def _format_row(row: Row) -> str:
    cells = "".join(_format_cell(cell, column) for cell, column in zip(_cells(row), COLUMNS, strict=True))
    trained = " data-trained" if row.weights else ""
    return f"<tr{trained}>{cells}</tr>\n"


def _format_cell(cell: Cell, column: Column) -> str:
    text = escape(cell.text)
    if cell.link is not None:
        text = f'<a href="{escape(cell.link)}">{text}</a>'
    if column is COLUMNS[0]:
        return f'<th scope="row">{text}</th>'
    if not column.is_number:
        return f"<td>{text}</td>"
    return (
        f'<td class="number">{text}</td>'
        if cell.number is None
        else (f'<td class="number" data-number="{cell.number:.12g}">{text}</td>')
    )


def _cells(row: Row) -> Iterator[Cell]:
    """Yields the cells in the order of `COLUMNS`; an unknown fact becomes an empty cell."""
    facts, weights = row.variant, row.bundled
    yield Cell(row.name, link=facts.source if re.match("https?://.", facts.source) else None)
    yield Cell(row.family)
    yield Cell(_task_title(row))
    height, width, channels = facts.input
    yield Cell("x".join(map(str, facts.input)), height * width * channels)
    yield Cell(f"{facts.params:,}", facts.params)
    yield Cell(row.millions, round(row.multiply_adds / 1e6, 2))
    yield Cell("" if row.weights is None else "Hub" if isinstance(row.weights, Published) else "package")
    yield Cell(weights.data if weights else "")
    for accuracy in (weights.accuracy, weights.one_view_accuracy) if weights else (None, None):
        yield Cell("") if accuracy is None else Cell(f"{100 * accuracy:.2f}", round(100 * accuracy, 4))
    yield Cell(weights.recipe if weights else facts.recipe or "")
    for figure in (weights.epoch_seconds if weights else None, *row.speeds):
        yield Cell("") if figure is None else Cell(format_number(figure), figure)


def _task_title(row: Row) -> str:
    return TASKS.get(row.variant.task, row.variant.task)
