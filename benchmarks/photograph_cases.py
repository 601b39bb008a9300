"""The timed functions of `benchmarks.photographs`: decoding and the training step, alone and together."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count, islice
from time import perf_counter, sleep
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqxcnn.data import EncodedImages
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import Job, Sums
from eqxcnn.training.job import HostBatch
from eqxcnn.training.step import train_steps

from .mlp_epoch import EpochTrainer
from .pipeline import make_step_input
from .timing import Case
from .torch_loader import ImageDataset, make_loader

#: Limits of the random resized crops.
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_WORKERS = 2
#: Number of batches that training from the device's memory chooses from.
_DEVICE_BATCHES = 8

DECODING, STEP, BOTH = "decoding", "training step, images on the device", "decoding and training step"
WAITING = "decoding and a step that only waits, as long as decoding takes"
INPUT = "decoding, flips, normalization"
TORCH = f"torch DataLoader, {_WORKERS} processes, Pillow, flips, normalization"


def make_cases(job: Job, num_batches: int, use_torch: bool) -> dict[str, Case]:
    """Returns the timed functions of a job whose images are streamed; each uses the same number of full batches."""
    decoding = StreamedBatches(job, num_batches, lambda _: None)
    make = async_jit(make_step_input)
    cases = {
        DECODING: decoding.case(),
        STEP: Case(EpochTrainer(put_on_device(job, num_batches)), before=job.close),
        BOTH: StreamedBatches(job, num_batches, TrainingStep(job)).case(),
        WAITING: StreamedBatches(job, num_batches, lambda _: sleep(decoding.seconds / num_batches)).case(),
        INPUT: StreamedBatches(
            job, num_batches, lambda batch: jax.block_until_ready(make(job.setup, np.int32(0), batch))
        ).case(),
    }
    if use_torch:
        loader = make_torch_loader(job, num_batches * job.recipe.batch_size)
        cases[TORCH] = Case(lambda: sum(1 for _ in loader), before=job.close)
    return cases


class StreamedBatches:
    """Decodes `num_batches` batches per call and passes each batch to `use`; a call returns the last result of `use`.

    `seconds` is the time of the last call.
    """

    def __init__(self, job: Job, num_batches: int, use: Callable[[HostBatch], Any]):
        self._job, self._num_batches, self._use = job, num_batches, use
        self._epochs: Iterator[int] = count()
        self._batches: Iterator[HostBatch] = iter(())
        self.seconds = 0.0

    def case(self) -> Case:
        """Returns a case that times one call of this object."""
        return Case(self, before=self.start)

    def start(self) -> None:
        """Starts a new epoch of the run, and uses a few batches, so that the decoder's buffer fills up."""
        self._job.close()
        # Each measurement has a different order of the images.
        self._batches = chain.from_iterable(map(self._job.all_batches, self._epochs))
        for batch in islice(self._batches, 8):
            jax.block_until_ready(self._use(batch))

    def __call__(self) -> Any:
        """Decodes and uses the batches."""
        started, result = perf_counter(), None
        for batch in islice(self._batches, self._num_batches):
            result = self._use(batch)
        jax.block_until_ready(result)
        self.seconds = perf_counter() - started
        return result


class TrainingStep:
    """Trains as `fit` does, one step per call, and returns the metrics' sums; weights carry over between calls."""

    def __init__(self, job: Job):
        self._setup, self._train = job.setup, job.make_start()
        self._steps = async_jit(train_steps, donate=True)

    def __call__(self, batch: HostBatch) -> Sums:
        """Starts the step."""
        self._train = self._steps(self._setup, self._train, batch)
        return self._train.sums


def put_on_device(job: Job, num_batches: int) -> Job:
    """Returns a job of `num_batches` steps; its images are a few decoded batches, which are on the device."""
    assert job.reader is not None
    images, labels, _ = next(job.reader.batches(0, 0, [(_DEVICE_BATCHES * job.recipe.batch_size,)]))
    rows = np.arange(num_batches * job.recipe.batch_size, dtype=np.int32) % len(labels)
    return replace(
        job,
        steps=num_batches,
        order=replace(job.order, rows=rows),
        setup=replace(job.setup, data=(jnp.asarray(images), jnp.asarray(labels))),
    )


def make_torch_loader(job: Job, num_images: int) -> Any:
    """Returns a PyTorch `DataLoader` of `num_images` images, with the job's crops, flips and normalization.

    The images are spread evenly over the training split.
    """
    images = job.splits.train.images
    assert isinstance(images, EncodedImages)
    rows = np.linspace(0, len(images) - 1, num_images).astype(np.int64)
    paths = [images.rows.value(int(images.numbers[row]), 0, lambda: rows)["path"] for row in rows]
    mean, std = (np.asarray(moment).tolist() for moment in (job.setup.mean, job.setup.std))
    dataset = ImageDataset(paths, None, job.splits.train.labels[rows], job.image_size, mean, std, SCALE, RATIO)
    return make_loader(dataset, job.recipe.batch_size, _WORKERS)
