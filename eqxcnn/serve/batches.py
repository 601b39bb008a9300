"""Gathers images of several requests into batches, without a timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

__all__ = ["Batcher", "QueueFull"]


class QueueFull(Exception):
    """The queue has no room for the images."""


class Batcher:
    """A worker that repeatedly classifies the waiting images, at most `max_batch` at once.

    If the network is idle, an image is classified immediately. Images that arrive while the network computes form the
    next batch, so batches grow with the load, and no image waits for a batch to fill up.

    - `classify`: returns one row per image; called in `thread`, one call at a time.
    - `max_waiting`: the capacity of the queue, in images.
    - `on_batch`: called with the size of each batch.
    """

    def __init__(
        self,
        classify: Callable[[Sequence[np.ndarray]], np.ndarray],
        thread: Executor,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int], Any],
    ) -> None:
        self._classify, self._thread, self._on_batch = classify, thread, on_batch
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    async def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns one row per image. Cancelling the call removes its images from the queue.

        **Raises:** `QueueFull` if the queue has no room for all of the images; no image is then added.
        """
        if len(self._waiting) + len(images) > self._max_waiting:
            raise QueueFull
        loop = asyncio.get_running_loop()
        own = [(image, loop.create_future()) for image in images]
        self._waiting.extend(own)
        self._arrived.set()
        try:
            return list(await asyncio.gather(*(future for _, future in own)))
        finally:
            if any(future.cancelled() for _, future in own):
                self._waiting = deque(item for item in self._waiting if not item[1].done())

    async def run(self) -> None:
        """Classifies batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            if not self._waiting:
                self._arrived.clear()
            if not batch:
                continue
            self._on_batch(len(batch))
            images, futures = zip(*batch, strict=True)
            try:
                rows = await loop.run_in_executor(self._thread, self._classify, images)
            except Exception as error:
                for future in futures:
                    if not future.done():  # A future is already done if its request was cancelled.
                        future.set_exception(error)
            else:
                for future, row in zip(futures, rows, strict=True):
                    if not future.done():
                        future.set_result(row)
