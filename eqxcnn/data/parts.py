"""The rows that make up the training or the test part of a data set, and their way to arrays."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from ..errors import InputError
from .cache import Chunk
from .columns import MISSING
from .decode import BadRow, decode_rows

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any


@dataclass(frozen=True)
class Part:
    """Rows of a split of the source: all of them, or one side of a hold-out.

    **Arguments:**

    - `rows`, `found_as`: the source's split, and its name there.
    - `numbers`: which of its rows, ascending.
    - `labels`: their class numbers.
    """

    rows: Dataset
    found_as: str
    numbers: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]


def decode_part(
    part: Part, column: str, image_shape: tuple[int, int, int], on_bad_image: str, title: str | None
) -> Generator[Chunk, None, None]:
    """Images, labels and rows left out, a chunk at a time, under a progress bar with this title.

    **Raises:** `InputError` at the first bad row unless told to `skip`, and in the end when no row was good.
    """
    labeled = part.labels != MISSING
    numbers, labels = part.numbers[labeled], part.labels[labeled]
    skipped = [BadRow(int(number), "it has no label") for number in part.numbers[~labeled]]
    first: BadRow | None = None
    done = kept = 0
    with (
        closing(decode_rows(part.rows, column, numbers, image_shape[:2], image_shape[2])) as decoded,
        _bar(title, len(numbers), image_shape) as advance,
    ):
        _stop_at(skipped, part, on_bad_image)
        for images, bad in decoded:
            _stop_at(bad, part, on_bad_image)
            good = ~np.isin(numbers[done : done + len(images)], [row for row, _ in bad])
            yield images[good], labels[done : done + len(images)][good], [*skipped, *bad]
            first = first or next(iter([*skipped, *bad]), None)
            skipped, done, kept = [], done + len(images), kept + int(good.sum())
            advance(len(images))
    if kept == 0:
        first = first or skipped[0]
        raise InputError(
            f"not one of {len(part.numbers)} rows of split `{part.found_as}` can be used; the first, row {first.row}: "
            f"{first.reason}."
        )


def _stop_at(bad: list[BadRow], part: Part, on_bad_image: str) -> None:
    if bad and on_bad_image == "stop":
        raise InputError(
            f"row {bad[0].row} of split `{part.found_as}` cannot be used: {bad[0].reason} (mend it, or leave such rows "
            "out with `--on-bad-image skip`)."
        )


@contextmanager
def _bar(title: str | None, rows: int, image_shape: tuple[int, int, int]) -> Iterator[Callable[[int], None]]:
    """A way to say how many rows more are done; what it shows stands on standard error."""
    if title is None:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        size = "x".join(map(str, image_shape))
        print(f"decoding {rows:,} images of {title} to {size} ...", file=sys.stderr, flush=True)
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"decoding {title}", total=rows)
        yield lambda done: bar.advance(task, done)
