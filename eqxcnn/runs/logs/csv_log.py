"""A run's metrics as a table for spreadsheets."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ...weights import write_text_atomically
from ..folder import Run

__all__ = ["CsvLog"]


class CsvLog:
    """Keeps `metrics.csv` beside `metrics.jsonl`: the same rows, with one column for every key."""

    shows_images = False

    def __init__(self, run: Run) -> None:
        self._run = run
        # If the run was resumed, `Run.rewind` may have removed rows that `metrics.csv` still contains.
        self._write()

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Rewrites the table from all rows of the run."""
        self._write()

    def image(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Does nothing: a table shows no images."""

    def __enter__(self) -> "CsvLog":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def _write(self) -> None:
        rows = self._run.metrics
        # A dict keeps the columns in the order of their first appearance.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        if columns:
            table = csv.DictWriter(text, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        write_text_atomically(self._run.folder / "metrics.csv", text.getvalue())
