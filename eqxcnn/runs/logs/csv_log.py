"""A run's metrics as a table that spreadsheets open."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ...weights import write_text_atomically
from ..folder import Run


class CsvLog:
    """Keeps `metrics.csv` beside `metrics.jsonl`: the same rows, and a column for whatever any of them has."""

    shows_pictures = False

    def __init__(self, run: Run) -> None:
        self._run = run
        # A run that goes on may have been rewound.
        self._write()

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Writes the table anew from all rows, so that it is right whatever was there before."""
        self._write()

    def picture(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """There is no place for it."""

    def __enter__(self) -> "CsvLog":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def _write(self) -> None:
        rows = self._run.metrics
        # A dict and not a set: the columns stand in the order in which they came up.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        if columns:
            table = csv.DictWriter(text, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        write_text_atomically(self._run.folder / "metrics.csv", text.getvalue())
