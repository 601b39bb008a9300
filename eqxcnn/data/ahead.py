"""`DecodeAhead`: uses Grain to decode the images of the next batches while the device computes."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import parent_process
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

from ..errors import InputError, printable
from ..images.crops import RandomCrop
from .batches import StreamedBatch
from .columns import MISSING
from .decode import BadRow
from .encoded import EncodedImages

__all__ = ["DecodeAhead"]

#: Largest total size, in bytes, of the decoded images that wait to be used.
_BUFFER_BYTES = 128 << 20
#: Images that are decoded at the same time are at most this many positions apart in an epoch's order.
_SLACK = 512
#: Training stops after this many unreadable rows in succession, even if bad rows are skipped.
_MAX_BAD = 100
#: Largest number of skipped rows that are reported, one per line.
_MAX_REPORTS = 10

#: Nice value of decoding threads, from 0 to 19; 19 is the lowest priority.
_NICENESS = 19
_thread = threading.local()

#: An image, the row it is from, and the unreadable rows that it replaces.
_Element = tuple[np.ndarray, int, tuple[BadRow, ...]]


class DecodeAhead:
    """Decodes images in the order of a run, a few batches ahead.

    The order of the images, their crops and the replacements of bad rows depend only on the position in the run. They
    are the same for any number of threads and processes, and after a run is resumed.

    **Arguments:**

    - `images`, `labels`: the images of a part of a data set, and their classes.
    - `rows`: returns the rows `[length]` of an epoch, in order.
    - `length`: number of rows in each epoch.
    - `crop`: the random crop to decode; by default the images' own preprocessing.
    - `processes`: number of processes that decode; 0 for threads of this process, one per core.
    - `replaces`: whether the next readable row replaces an unreadable row; otherwise the unreadable row has the label
        `MISSING`. If the images' `on_bad_image` is `stop`, an unreadable row is an error instead.
    """

    def __init__(
        self,
        images: EncodedImages,
        labels: Int32[np.ndarray, " n"],
        rows: Callable[[int], Integer[np.ndarray, " length"]],
        length: int,
        crop: RandomCrop | None = None,
        processes: int = 0,
        replaces: bool = True,
    ) -> None:
        images = images.fresh()
        self._images, self._labels, self._processes, self._length = images, labels, processes, length
        self._load = _Load(images, rows, length, crop, replaces and images.on_bad_image == "skip")
        self._elements: Any = None
        self._next, self._is_started = -1, False
        self._reported: set[int] = set()

    def batches(self, epoch: int, first: int, shapes: Iterable[tuple[int, ...]]) -> Iterator[StreamedBatch]:
        """Yields images, labels and rows in arrays of the given shapes, starting at position `first` of an epoch.

        **Raises:** `InputError` for an unreadable image, and if a decoding process dies.
        """
        start = epoch * self._length + first
        for shape in shapes:
            if self._next != start:
                self._seek(start)
            count = int(np.prod(shape))
            images = np.empty((count, *self._images.shape[1:]), np.uint8)
            rows, labels = np.empty(count, np.int32), np.empty(count, np.int32)
            for index in range(count):
                images[index], rows[index], bad = self._take()
                labels[index] = self._labels[rows[index]]
                if bad:
                    self._report(bad)
                    labels[index] = labels[index] if self._load.replaces else MISSING
            start += count
            yield images.reshape(*shape, *images.shape[1:]), labels.reshape(shape), rows.reshape(shape)

    def close(self) -> None:
        """Ends the threads or processes; a later call of `batches` starts them again."""
        if self._elements is not None:
            self._elements.close()
        self._elements, self._next, self._is_started = None, -1, False

    def _seek(self, start: int) -> None:
        import grain

        self.close()
        # Each thread decodes one image at a time, and each decoding process has one such thread. Finished images wait
        # in buffers.
        ahead = max(_BUFFER_BYTES // int(np.prod(self._images.shape[1:])), 1)
        threads = 1 if self._processes else os.cpu_count() or 1
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(min(ahead, 256), threads))
        elements = grain.MapDataset.source(_Positions(start)).map(self._load).to_iter_dataset(options)
        if self._processes:
            from absl import flags

            # Grain's processes read absl's flags, which our commands never parse.
            flags.FLAGS.mark_as_parsed()
            buffers = max(min(ahead, 256) // self._processes, 1)
            options = grain.MultiprocessingOptions(self._processes, buffers)
            elements = elements.mp_prefetch(options, worker_init_fn=_start_process)
        self._elements, self._next = iter(elements), start

    def _take(self) -> _Element:
        try:
            element = next(self._elements)
        except RuntimeError as error:
            if not self._processes:
                raise
            reason, is_started = str(error).split(".")[0], self._is_started
            self.close()
            advice = "resume the run, with fewer `decode_processes` if the memory was full"
            if not is_started and reason.endswith("exit code 1"):
                # Each decoding process imports the user's script; this import must not start another run.
                advice = "in a script, train under `if __name__ == '__main__':`, or set `decode_processes` to 0"
            raise InputError(f"a process that decodes images has died ({reason}): {advice}") from error
        self._is_started = True
        self._next += 1
        return element

    def _report(self, bad: tuple[BadRow, ...]) -> None:
        if self._images.on_bad_image == "stop" or len(bad) >= _MAX_BAD:
            self.close()
            raise self._images.refuse(bad[0])
        for each in bad:
            if each.row not in self._reported and len(self._reported) < _MAX_REPORTS:
                line = f"skipping row {each.row} of split `{self._images.split}`: {each.reason}"
                print(printable(line, limit=1000), file=sys.stderr, flush=True)
            self._reported.add(each.row)


def _start_process(index: int, count: int) -> None:
    """Makes a decoding process exit when the main process ends, and ignore signals, which the main process handles."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _lower_priority() -> None:
    """Lowers the priority of this thread, so that it decodes mainly when the other threads do not need the core.

    A training step on a CPU is shared evenly among the cores and waits for the slowest core. A decoding thread of
    normal priority would therefore delay the step by more than the time that decoding takes.
    """
    # Only Linux has per-thread priorities; elsewhere, the whole process would get a lower priority.
    if sys.platform == "linux" and not getattr(_thread, "is_low", False):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        _thread.is_low = True


@dataclass(frozen=True)
class _Positions:
    """A Grain source of the positions in a run, from `start` on. Grain requires a length, so `len` returns 2**40."""

    start: int

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, index: int) -> int:
        return self.start + int(index)


@dataclass(frozen=True)
class _Load:
    """Decodes the image at a position of a run; Grain calls this object in its threads or processes."""

    images: EncodedImages
    rows: Callable[[int], Integer[np.ndarray, " length"]]
    length: int
    crop: RandomCrop | None
    replaces: bool
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def __call__(self, position: int) -> _Element:
        _lower_priority()
        epoch, place = divmod(position, self.length)
        order, bad = self._order(epoch), []
        for row in (int(order[(place + offset) % self.length]) for offset in range(_MAX_BAD)):
            choose_box = None if self.crop is None else partial(self.crop.draw, epoch, row)
            # Threads may ask for images slightly out of order.
            pixels = self.images.read(row, epoch, lambda: order[max(place - _SLACK, 0) :], choose_box)
            if not isinstance(pixels, BadRow):
                return pixels, row, tuple(bad)
            bad.append(pixels)
            if not self.replaces:
                break
        return np.zeros(self.images.shape[1:], np.uint8), int(order[place]), tuple(bad)

    def _order(self, epoch: int) -> np.ndarray:
        found = self._orders.get(epoch)
        if found is None:
            # Images of two successive epochs can be decoded at the same time.
            for old in [each for each in list(self._orders) if abs(each - epoch) > 1]:
                self._orders.pop(old, None)
            found = self._orders[epoch] = self.rows(epoch)
        return found
