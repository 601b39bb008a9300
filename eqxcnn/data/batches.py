"""Which rows are in which batch: a hold-out, an epoch's order, full batches to train on, padded ones to evaluate on."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8

from ..errors import InputError


def hold_out(
    labels: Integer[np.ndarray, " n"], fraction: float, seed: int
) -> tuple[Int32[np.ndarray, " kept"], Int32[np.ndarray, " held"]]:
    """Sets a fraction of the rows aside, the same fraction of each class.

    **Arguments:**

    - `labels`: the class of each row.
    - `fraction`: how much to hold out, between 0 and 1. A class's share is rounded, but of two rows or more at least
        one goes to each side; a class's only row is kept.
    - `seed`: the same seed holds out the same rows.

    **Returns:** the numbers of the rows kept and of those held out, each in ascending order.
    """
    if not 0 < fraction < 1:
        raise InputError(f"`fraction` (={fraction}) of rows to hold out must be between 0 and 1.")
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(round(fraction * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)


def epoch_order(n: int, seed: int, epoch: int, shuffle: bool = True) -> Int32[np.ndarray, " {n}"]:
    """The order in which an epoch visits `n` rows: a function of seed and epoch alone, so a resumed run repeats it."""
    if not shuffle:
        return np.arange(n, dtype=np.int32)
    return np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)


def balanced_order(labels: Integer[np.ndarray, " n"], seed: int, epoch: int) -> Int32[np.ndarray, " n"]:
    """As many rows as there are, drawn with replacement so that each class there is comes as often; likewise repeated.

    **Arguments:**

    - `labels`: the class of each row.
    - `seed`, `epoch`: as for `epoch_order`.
    """
    images = np.bincount(labels)
    chance = 1 / images[labels]
    rng = np.random.default_rng([seed, epoch])
    return rng.choice(len(labels), len(labels), p=chance / chance.sum()).astype(np.int32)


def train_batches(order: Int32[np.ndarray, " n"], batch_size: int) -> Int32[np.ndarray, "k {batch_size}"]:
    """Cuts an epoch's order into full batches; the rows that fill none are left out.

    **Raises:** `InputError` when there is not a single batch.
    """
    _check_batch_size(batch_size)
    batches = len(order) // batch_size
    if batches == 0:
        raise InputError(
            f"`batch_size` (={batch_size}) is more than the {len(order)} images to train on: choose a smaller one."
        )
    return order[: batches * batch_size].reshape(batches, batch_size)


def eval_batches(
    n: int, batch_size: int
) -> tuple[Int32[np.ndarray, "k {batch_size}"], Bool[np.ndarray, "k {batch_size}"]]:
    """The rows 0 to n - 1 in order, in batches of one size, and a mask that is false where a row only fills a batch."""
    _check_batch_size(batch_size)
    rows = np.arange(-(-n // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    mask = rows < n
    return np.where(mask, rows, 0).astype(np.int32), mask


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"`batch_size` (={batch_size}) must be at least 1.")


#: Images, labels and rows of a batch, or of several stacked.
StreamedBatch: TypeAlias = tuple[UInt8[np.ndarray, "*k b h w c"], Int32[np.ndarray, "*k b"], Int32[np.ndarray, "*k b"]]


@dataclass(frozen=True)
class Prefetch:
    """Iterates over batches of a set that is too large for the device, read from disk by a thread one step ahead.

    Gives images, labels and rows of each batch. An error in the thread is raised at the batch it belongs to. Leaving
    the loop early ends the thread.

    **Arguments:**

    - `images`, `labels`: the whole split, memory-mapped.
    - `batches`: the rows of each batch, as `train_batches` and `eval_batches` give them, or of several stacked.
    - `depth`: how many batches to hold ready.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    batches: Iterable[Int32[np.ndarray, "... b"]]
    depth: int = 2

    def __iter__(self) -> Iterator[StreamedBatch]:
        ready: deque[Future[StreamedBatch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
            try:
                for rows in self.batches:
                    ready.append(pool.submit(self._gather, rows))
                    if len(ready) > self.depth:
                        yield ready.popleft().result()
                while ready:
                    yield ready.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _gather(self, rows: np.ndarray) -> StreamedBatch:
        return np.asarray(self.images[rows]), self.labels[rows], rows
