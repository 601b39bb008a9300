"""Order of rows and batches: hold-outs, the order of an epoch, full training batches, padded evaluation batches."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, UInt8

from ..errors import InputError
from .records import ImageArray

__all__ = [
    "Prefetch",
    "StreamedBatch",
    "TrainOrder",
    "balanced_order",
    "buffered_order",
    "epoch_order",
    "eval_batches",
    "hold_out",
    "train_batches",
]

#: Spawn keys that separate the random streams of one seed, by purpose; the report's example images use key 3. The
#: order of an epoch comes from `default_rng([seed, epoch])`, without a spawn key, so it differs from all these streams.
#: `default_rng(seed)` must not be used: it equals the stream of epoch 0.
_HOLD_OUT_STREAMS = {"validation": 1, "test": 2}


def hold_out(
    labels: Integer[np.ndarray, " n"],
    fraction: float,
    seed: int,
    purpose: Literal["validation", "test"] = "validation",
) -> tuple[Int32[np.ndarray, " kept"], Int32[np.ndarray, " held"]]:
    """Splits rows in two, with the same fraction of each class held out.

    **Arguments:**

    - `labels`: the class of each row.
    - `fraction`: the fraction to hold out, between 0 and 1. It applies to each class, and the number of held-out rows
        is rounded. Every class keeps at least one row, and a class of two or more rows also holds out at least one.
    - `seed`: the same seed holds out the same rows.
    - `purpose`: hold-outs for different purposes are drawn independently.

    **Returns:** the indices of the kept rows and of the held-out rows, each in ascending order.
    """
    if not 0 < fraction < 1:
        raise InputError(f"`fraction` (={fraction}) of rows to hold out must be between 0 and 1.")
    if seed < 0:
        raise InputError(f"`seed` (={seed}) must be 0 or more.")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_HOLD_OUT_STREAMS[purpose],)))
    is_held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        is_held[rows[: min(max(round(fraction * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~is_held).astype(np.int32), np.flatnonzero(is_held).astype(np.int32)


def epoch_order(n: int, seed: int, epoch: int, shuffle: bool = True) -> Int32[np.ndarray, " {n}"]:
    """Returns the order in which an epoch visits `n` rows.

    The order depends only on `seed` and `epoch`, so a resumed run repeats it.
    """
    if not shuffle:
        return np.arange(n, dtype=np.int32)
    return np.random.default_rng([seed, epoch]).permutation(n).astype(np.int32)


def buffered_order(n: int, seed: int, epoch: int, size: int) -> Int32[np.ndarray, " {n}"]:
    """Returns the order of an epoch that is shuffled with a buffer of `size` rows.

    Each row is drawn from the rows in the buffer, and the next row of the stream replaces it in the buffer. A row
    therefore comes at most `size` places early, so a stream can be read from start to end. The order depends only on
    the arguments.
    """
    draws = np.random.default_rng([seed, epoch]).random(n).tolist()
    order, buffer = np.empty(n, np.int32), list(range(min(size, n)))
    for place, draw in enumerate(draws):
        chosen = int(draw * len(buffer))
        order[place] = buffer[chosen]
        following = place + size
        buffer[chosen] = following if following < n else buffer[-1]
        if following >= n:
            buffer.pop()
    return order


def balanced_order(labels: Integer[np.ndarray, " n"], seed: int, epoch: int) -> Int32[np.ndarray, " n"]:
    """Draws as many rows as there are labels, with replacement and with each class equally likely.

    **Arguments:**

    - `labels`: the class of each row.
    - `seed`, `epoch`: determine the draws. `epoch_order` uses the same random stream, but each epoch is ordered by only
        one of the two functions.
    """
    images_per_class = np.bincount(labels)
    weights = 1 / images_per_class[labels]
    rng = np.random.default_rng([seed, epoch])
    return rng.choice(len(labels), len(labels), p=weights / weights.sum()).astype(np.int32)


def train_batches(order: Int32[np.ndarray, " n"], batch_size: int) -> Int32[np.ndarray, "k {batch_size}"]:
    """Cuts the order of an epoch into full batches and drops the remaining rows.

    **Raises:** `InputError` if there are fewer than `batch_size` rows.
    """
    _check_batch_size(batch_size)
    batches = len(order) // batch_size
    if batches == 0:
        raise InputError(
            f"`batch_size` (={batch_size}) is more than the {len(order)} images to train on: choose a smaller batch."
        )
    return order[: batches * batch_size].reshape(batches, batch_size)


@dataclass(frozen=True)
class TrainOrder:
    """The order of training: the rows of each batch in every epoch.

    - `rows`: the rows to train on.
    - `labels`: the class of each of these rows, to draw all classes equally often; `None` to use each row once per
        epoch.
    - `batch_size`, `seed`, `shuffle`: see `train_batches` and `epoch_order`.
    - `buffer`: the size of the buffer that shuffles a stream, or `None` to shuffle all rows.
    """

    rows: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"] | None
    batch_size: int
    seed: int
    shuffle: bool
    buffer: int | None = None

    def batches(self, epoch: int) -> Int32[np.ndarray, "k b"]:
        """Returns the rows of each full batch of an epoch, in order."""
        if self.labels is None and self.buffer is not None and self.shuffle:
            order = buffered_order(len(self.rows), self.seed, epoch, self.buffer)
        elif self.labels is None:
            order = epoch_order(len(self.rows), self.seed, epoch, shuffle=self.shuffle)
        else:
            order = balanced_order(self.labels, self.seed, epoch)
        return self.rows[train_batches(order, self.batch_size)]

    def flat(self, epoch: int, part: slice = slice(None)) -> Int32[np.ndarray, " n"]:
        """Returns the rows of all full batches of an epoch in one array; `part` selects a slice of each batch."""
        return self.batches(epoch)[:, part].reshape(-1)


def eval_batches(
    n: int, batch_size: int
) -> tuple[Int32[np.ndarray, "k {batch_size}"], Bool[np.ndarray, "k {batch_size}"]]:
    """Returns the rows 0 to n - 1 in order, in batches of equal size, and a mask that is false for padding rows."""
    _check_batch_size(batch_size)
    rows = np.arange(-(-n // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    mask = rows < n
    return np.where(mask, rows, 0).astype(np.int32), mask


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"`batch_size` (={batch_size}) must be at least 1.")


#: Images, labels and rows of one batch or of several stacked batches.
StreamedBatch: TypeAlias = tuple[
    UInt8[np.ndarray, "*k b h w c"] | Float32[np.ndarray, "*k b h w c"],
    Int32[np.ndarray, "*k b"],
    Int32[np.ndarray, "*k b"],
]


@dataclass(frozen=True)
class Prefetch:
    """Iterates over batches that a thread reads from disk ahead of the loop, for a data set too large for the device.

    Yields images, labels and rows of each batch. If the thread fails to read a batch, the loop raises the error when it
    reaches this batch. Leaving the loop early ends the thread.

    **Arguments:**

    - `images`, `labels`: the whole split, memory-mapped.
    - `batches`: the rows of each batch, from `train_batches` or `eval_batches`; an item may stack several batches.
    - `depth`: the greatest number of batches to read ahead.
    - `max_bytes`: the largest total size of the images read ahead. One batch is always read ahead, whatever its size.
    """

    images: ImageArray
    labels: Int32[np.ndarray, " n"]
    batches: Iterable[Int32[np.ndarray, "... b"]]
    depth: int = 2
    max_bytes: int = 256 << 20

    def __iter__(self) -> Iterator[StreamedBatch]:
        bytes_per_image = int(np.prod(self.images.shape[1:])) * self.images.itemsize
        ahead: deque[tuple[int, Future[StreamedBatch]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
            try:
                for rows in self.batches:
                    ahead.append((rows.size * bytes_per_image, pool.submit(self._gather, rows)))
                    # The caller gets the first batch in `ahead`; meanwhile, the thread reads the others.
                    while len(ahead) > 1 and self._is_full([size for size, _ in ahead]):
                        yield ahead.popleft()[1].result()
                while ahead:
                    yield ahead.popleft()[1].result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _is_full(self, sizes: list[int]) -> bool:
        return len(sizes) > self.depth or sum(sizes) > self.max_bytes

    def _gather(self, rows: np.ndarray) -> StreamedBatch:
        return np.asarray(self.images[rows]), self.labels[rows], rows
