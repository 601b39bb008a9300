"""Sources of encoded images: the rows of a table, in any order, or the rows of a stream, read forward."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError
from ..images.opening import describe_error
from .pixels import stored_values

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["RowSource", "StreamRows", "TableRows"]

#: Number of recently read rows that are kept, because they may have to replace an unreadable row.
_RECENT = 256


@runtime_checkable
class RowSource(Protocol):
    """The stored values of an image column."""

    def value(self, number: int, epoch: int, needed: Callable[[], np.ndarray]) -> Any:
        """Returns the value of a row.

        **Arguments:**

        - `number`: the row's number in its split.
        - `epoch`: the number of the pass over the rows.
        - `needed`: returns the numbers of all rows that this pass may still read.
        """
        ...

    def fresh(self) -> "RowSource":
        """Returns a source of the same rows, with a separate reading position."""
        ...


@dataclass(frozen=True)
class TableRows:
    """The rows of a memory-mapped table.

    - `rows`, `column`: the table and its image column.
    - `opened`: the time at which the table was opened, in nanoseconds; files must not change afterwards.
    """

    rows: Dataset
    column: str
    opened: int = field(default_factory=time.time_ns)

    def value(self, number: int, epoch: int, needed: Callable[[], np.ndarray]) -> Any:
        """Returns the value of a row; see `RowSource`.

        **Raises:** `InputError` for an image file that has changed since the table was opened.
        """
        (value,) = stored_values(self._raw[number : number + 1][self.column])
        path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
        if path and _changed_at(path) > self.opened:
            raise InputError(f"`{path}` has changed since the data were opened: restore it, or start again")
        return value

    def fresh(self) -> "TableRows":
        """Returns itself, because a table has no reading position."""
        return self

    @cached_property
    def _raw(self) -> Dataset:
        return self.rows.select_columns(self.column).with_format("arrow")


class StreamRows:
    """The rows of a stream. Each pass reads them forward once; threads may ask for them slightly out of order.

    **Arguments:**

    - `open_rows`: returns an iterator over the stream's values, from the first row on.
    - `count`: the number of rows.
    - `title`: the stream's name in messages.
    """

    def __init__(self, open_rows: Callable[[], Iterator[Any]], count: int, title: str) -> None:
        self._open_rows, self._count, self._title = open_rows, count, title
        self._lock = threading.Lock()
        self._passes: OrderedDict[int, _Pass] = OrderedDict()

    def value(self, number: int, epoch: int, needed: Callable[[], np.ndarray]) -> Any:
        """Returns the value of a row; see `RowSource`.

        **Raises:** `InputError` if the stream ends early or cannot be read.
        """
        with self._lock:
            current = self._passes.get(epoch)
            if current is None or not current.can_reach(number):
                current = self._passes[epoch] = _Pass(self._open_rows(), self._mask(needed()), self._title)
                # Images of two successive epochs can be decoded at the same time.
                while len(self._passes) > 2:
                    self._passes.popitem(last=False)
            return current.take(number)

    def fresh(self) -> "StreamRows":
        """Returns a source that reads the stream again."""
        return StreamRows(self._open_rows, self._count, self._title)

    def _mask(self, needed: np.ndarray) -> np.ndarray:
        mask = np.zeros(self._count, bool)
        mask[needed] = True
        return mask


class _Pass:
    """One pass over a stream; keeps the rows that were read and are still needed."""

    def __init__(self, rows: Iterator[Any], needed: np.ndarray, title: str) -> None:
        self._rows, self._needed, self._title = rows, needed, title
        self._position = 0
        self._kept: dict[int, Any] = {}
        self._recent: OrderedDict[int, Any] = OrderedDict()

    def can_reach(self, number: int) -> bool:
        return number >= self._position or number in self._kept or number in self._recent

    def take(self, number: int) -> Any:
        while self._position <= number:
            value = self._read_next()
            if self._needed[self._position] or self._position == number:
                self._kept[self._position] = value
            self._position += 1
        if number in self._kept:
            self._recent[number] = self._kept.pop(number)
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return self._recent[number]

    def _read_next(self) -> Any:
        where = f"the stream of {self._title} ended after {self._position:,} of {len(self._needed):,} rows"
        try:
            return next(self._rows)
        except StopIteration:
            raise InputError(f"{where}: it has changed, so start a new run") from None
        except Exception as error:  # Network clients and archive readers have no common exception type.
            raise InputError(f"{where} ({describe_error(error)}): check the connection, and resume the run") from error


def _changed_at(path: str) -> int:
    """Returns the time of a file's last change in nanoseconds, or 0 if the file cannot be accessed.

    The decoder then refuses the file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0
    # A copy over this file may keep an older modification time, but the status-change time is always new.
    return max(status.st_mtime_ns, status.st_ctime_ns)
