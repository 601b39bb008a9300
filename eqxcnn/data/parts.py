"""The rows of the training or the test part of a data set, and their decoding with a progress bar."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from ..cli import show_progress
from ..errors import InputError
from ..images.preprocess import Preprocess
from .cache import Chunk
from .columns import MISSING
from .decode import BadRow, decode_rows

if TYPE_CHECKING:
    from datasets import Dataset
else:
    Dataset = Any

__all__ = ["Part", "check_bad_rows", "decode_part", "labeled_rows", "progress_bar"]


@dataclass(frozen=True)
class Part:
    """Rows of a split of the source: all of them, or one side of a hold-out.

    **Arguments:**

    - `rows`: all rows of the source's split.
    - `split`: the split's name in the source.
    - `numbers`: the numbers of the rows of this part, ascending.
    - `labels`: the class numbers of these rows.
    - `fingerprint`: a digest of the images and labels of these rows.
    """

    rows: Dataset
    split: str
    numbers: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    fingerprint: str


def decode_part(
    part: Part, column: str, preprocess: Preprocess, on_bad_image: str, title: str | None, scale: int = 1
) -> Generator[Chunk, None, None]:
    """Yields images, labels and skipped rows, a chunk at a time; shows a progress bar with the given title.

    **Arguments:**

    - `scale`: see `decode_rows`.

    **Raises:** `InputError` at the first bad row unless `on_bad_image` is `"skip"`, or at the end if every row is bad.
    """
    numbers, labels, skipped = labeled_rows(part)
    first_bad: BadRow | None = None
    done = kept = 0
    with (
        closing(decode_rows(part.rows, column, numbers, preprocess, scale)) as decoded,
        progress_bar(title, len(numbers), (*preprocess.size, preprocess.channels)) as advance,
    ):
        check_bad_rows(skipped, part, on_bad_image)
        for images, bad in decoded:
            check_bad_rows(bad, part, on_bad_image)
            is_good = ~np.isin(numbers[done : done + len(images)], [row for row, _ in bad])
            yield images[is_good], labels[done : done + len(images)][is_good], [*skipped, *bad]
            first_bad = first_bad or next(iter([*skipped, *bad]), None)
            skipped, done, kept = [], done + len(images), kept + int(is_good.sum())
            advance(len(images))
    if kept == 0:
        first_bad = first_bad or skipped[0]
        raise InputError(
            f"none of the {len(part.numbers)} rows of split `{part.split}` can be used (row "
            f"{first_bad.row}: {first_bad.reason})."
        )


def labeled_rows(part: Part) -> tuple[Int32[np.ndarray, " k"], Int32[np.ndarray, " k"], list[BadRow]]:
    """Returns the row numbers and the labels of the labeled rows, and a `BadRow` for each unlabeled row."""
    has_label = part.labels != MISSING
    unlabeled = [BadRow(int(number), "it has no label") for number in part.numbers[~has_label]]
    return part.numbers[has_label], part.labels[has_label], unlabeled


def check_bad_rows(bad: list[BadRow], part: Part, on_bad_image: str) -> None:
    """Refuses bad rows if `on_bad_image` is `stop`.

    **Raises:** `InputError` naming the first bad row.
    """
    if bad and on_bad_image == "stop":
        raise InputError(
            f"row {bad[0].row} of split `{part.split}` cannot be used: {bad[0].reason} (repair it, or skip bad rows "
            "with `--on-bad-image skip`)."
        )


@contextmanager
def progress_bar(
    title: str | None, rows: int, image_shape: tuple[int, int, int] | None = None
) -> Iterator[Callable[[int], None]]:
    """Shows progress on standard error (a bar, or a line without a terminal); yields a function that advances it."""
    if title is None:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        size = "" if image_shape is None else f" to {'x'.join(map(str, image_shape))}"
        print(f"decoding {rows:,} images of {title}{size} ...", file=sys.stderr, flush=True)
        yield lambda _: None
        return
    with show_progress(f"decoding {title}", rows) as advance:
        yield advance
