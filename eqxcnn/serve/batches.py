"""Gathers images of several requests into batches, without a timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

__all__ = ["Batcher", "QueueFull"]


class QueueFull(Exception):
    """As many images wait as may wait."""


class Batcher:
    """One worker that takes all images that wait, up to `max_batch`, classifies them, and takes those that came since.

    A single image is classified at once, and the more requests come, the larger the batches are: no request waits for
    others that may never come.

    - `classify`: maps a list of images to one row per image; called in `thread`, never twice at a time.
    - `max_waiting`: the largest number of images that wait.
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
        """Returns one row per image; a cancelled call takes its waiting images out of the queue.

        **Raises:** `QueueFull` if not all of the images may wait; then none does.
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
                _finish(futures, lambda future, _, error=error: future.set_exception(error), futures)
            else:
                _finish(futures, lambda future, row: future.set_result(row), rows)


def _finish(
    futures: Sequence[asyncio.Future[np.ndarray]], finish: Callable[[Any, Any], None], values: Iterable[Any]
) -> None:
    """Calls `finish` for all futures but those of requests that have given up."""
    for future, value in zip(futures, values, strict=True):
        if not future.done():
            finish(future, value)
