"""`python -m benchmarks.photographs`: images that are decoded while training, from a set as large as its files.

Makes synthetic JPEG files of 500x375 pixels and about 100 kB, and trains on random crops of 224x224 pixels of them with
`decode: stream`. Decoding and the training step are timed alone and together. On a CPU they compete for the same cores;
a step that only waits, as long as decoding takes, shows how far decoding overlaps with the steps of another device. The
memory of the training process and the time until its first step are those of the command `python -m eqxcnn.train`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Literal

import jax
import numpy as np
import tyro

from eqxcnn.cli import run_command
from eqxcnn.data import EncodedImages
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit
from eqxcnn.runtime.memory import keep_freed_memory
from eqxcnn.training import HostBatch, Job, Recipe, count_steps, prepare
from eqxcnn.training.step import train_steps

from .pipeline import make_step_input
from .startup import MOMENTS, QUARTILES, Probe, format_quartiles, run_probe
from .synthetic_photographs import Photographs
from .timing import RESULTS, Benchmark, Case, Ratio, ResultTable, check_options, measure, report
from .torch_loader import ImageDataset, make_loader

_SIZE, _SCALE, _RATIO = (224, 224), (0.08, 1.0), (3 / 4, 4 / 3)
#: One test photograph for this many training photographs.
_TEST_SHARE = 50
_WORKERS = 2
_EPOCHS = 3
_DECODING, _STEP, _BOTH = "decoding", "training step, images on the device", "decoding and training step"
_WAITING = "decoding and a step that only waits, as long as decoding takes"
_INPUT = "decoding, flips, normalization"
_TORCH = f"torch DataLoader, {_WORKERS} processes, Pillow, flips, normalization"


@dataclass(frozen=True)
class Options:
    """Time training on photographs that are decoded while training, and measure its memory."""

    folder: Path
    """Folder of the synthetic photographs: made if it does not exist, else used again. 50,000 take 5 GB."""
    photographs: int = 50_000
    """Training photographs in the folder."""
    layout: Literal["folders", "parquet"] = "folders"
    """Class folders or parquet files."""
    model: str = "shufflenet_v2_x0_5"
    """The model to train."""
    batch_size: int = 64
    """Images per step."""
    images: int = 4096
    """Images per measurement."""
    images_per_epoch: int = 10_000
    """Images between two readings of the training process's memory, of which there are three."""
    torch: bool = True
    """Also time PyTorch's DataLoader; needs torch and torchvision, and class folders."""
    rounds: int = 5
    """Measurements of each case."""
    out: Path = RESULTS / "photographs.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, makes the photographs, measures, writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.photographs", args=arguments)
    check_options(options.rounds, options.out)
    _check_counts(options)
    classes = min(max(options.photographs // 500, 2), 100)
    made = Photographs(options.photographs, max(options.photographs // _TEST_SHARE, classes), classes, options.layout)
    made.write(options.folder)
    recipe = make_recipe(options)
    tables = [*_measure_process(options, recipe)]
    keep_freed_memory()
    seconds = measure(make_cases(prepare(recipe), options), options.rounds)
    benchmark = Benchmark(
        "photographs",
        f"{options.photographs:,} photographs of 500x375 pixels, cropped to 224x224; `{options.model}`, batches of "
        f"{options.batch_size}",
        arguments, "s", {}, make_ratios(seconds), images=_count_batches(options) * options.batch_size,
        make_tables=lambda _: tables,
    )  # fmt: skip
    report(benchmark, seconds, options.out)


def _check_counts(options: Options) -> None:
    if not options.batch_size <= options.images <= options.photographs:
        raise InputError(
            f"`images` (={options.images}) must be at least one batch of {options.batch_size} and at most the "
            f"{options.photographs:,} `photographs`"
        )
    if options.images_per_epoch < options.batch_size:
        raise InputError(
            f"`images_per_epoch` (={options.images_per_epoch}) must be at least one batch of {options.batch_size}"
        )
    if options.torch and options.layout != "folders":
        raise InputError("the comparison with torch reads class folders: leave `layout` out, or add `--no-torch`")


def make_recipe(options: Options) -> Recipe:
    """Returns the recipe of the training process, which trains on three times `images_per_epoch` images."""
    crop = f"random_resized_crop(scale={_SCALE}, ratio={_RATIO})"
    return Recipe(
        model=options.model, data=str(options.folder), decode="stream", image_size=_SIZE, validation=0.0,
        batch_size=options.batch_size, epochs=_EPOCHS * options.images_per_epoch / options.photographs,
        learning_rate=0.01, augment=("flip_horizontal", crop),
    )  # fmt: skip


def make_cases(job: Job, options: Options) -> dict[str, Case]:
    """Returns the timed functions; each uses the same number of full batches."""
    num_batches = _count_batches(options)
    decoding = StreamedBatches(job, num_batches, lambda _: None)
    train = TrainingStep(job)
    make = async_jit(make_step_input)
    cases = {
        _DECODING: decoding.case(),
        _STEP: Case(lambda: [train.repeat() for _ in range(num_batches)][-1], before=job.close),
        _BOTH: StreamedBatches(job, num_batches, train).case(),
        _WAITING: StreamedBatches(job, num_batches, lambda _: sleep(decoding.seconds / num_batches)).case(),
        _INPUT: StreamedBatches(
            job, num_batches, lambda batch: jax.block_until_ready(make(job.setup, np.int32(0), batch))
        ).case(),
    }
    if options.torch:
        loader = make_torch_loader(job, num_batches * options.batch_size)
        cases[_TORCH] = Case(lambda: sum(1 for _ in loader), before=job.close)
    return cases


class StreamedBatches:
    """A call decodes a number of batches and passes each to `use`; returns the last result of `use`.

    `seconds` is the time of the last call.
    """

    def __init__(self, job: Job, num_batches: int, use: Callable[[HostBatch], Any]):
        self._job, self._num_batches, self._use = job, num_batches, use
        self._epochs, self._batches = count(), iter(())
        self.seconds = 0.0

    def case(self) -> Case:
        """Returns the case that times a call."""
        return Case(self, before=self.start)

    def start(self) -> None:
        """Starts at another place of the run, and uses batches until the decoder's buffer is as full as it gets."""
        self._job.close()
        # Another order of the images for each measurement.
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
    """Trains a step on a batch, as `fit` does, and returns the sums of the metrics; weights carry over."""

    def __init__(self, job: Job):
        self._setup, self._steps = job.setup, async_jit(train_steps, donate=True)
        self._train = job.make_start()
        self._batch: Any = jax.device_put(next(iter(job.all_batches(0))))
"""XX"""
