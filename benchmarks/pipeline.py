"""`python -m benchmarks.pipeline`: the input pipeline, from files to a step, compared with PyTorch and `datasets`.

The images are small, and are decoded before the measurement; `benchmarks.photographs` decodes photographs while
training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Array, Int

from eqxcnn.cli import run_command
from eqxcnn.data.columns import find_image_column
from eqxcnn.data.reading import read_rows
from eqxcnn.data.sources import find_source
from eqxcnn.errors import InputError
from eqxcnn.optim.losses import Targets
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import Job, Setup, load_recipe, prepare
from eqxcnn.training.inputs import Batch, make_input, step_keys
from eqxcnn.types import Images

from .mlp_epoch import EpochTrainer
from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark
from .torch_loader import ImageDataset, make_loader

#: `datasets` would take too long for an epoch in its slowest format, so its time is scaled up from this many images.
_NUM_DATASETS_IMAGES = 1024
_WORKERS = 2


@dataclass(frozen=True)
class Options:
    """Time the input pipeline of `cifar_cnn` (flips, random crops, normalization), alone and with the training step."""

    data: str = "cifar10"
    """A data set's name or folder."""
    images: int = 8192
    """Training images per measurement; times are scaled to the whole training split."""
    torch: bool = True
    """Also time PyTorch's DataLoader; needs torch and torchvision."""
    rounds: int = 7
    """Measurements of each case."""
    out: Path = RESULTS / "pipeline.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.pipeline", args=arguments)
    if options.images < load_recipe("cifar_cnn").batch_size:
        raise InputError(f"`images` (={options.images}) must be at least one batch of 128")
    job = prepare_job(options)
    plain, streamed = (replace(job, setup=replace(job.setup, **{part: None})) for part in ("augment", "data"))
    num_images, num_used = len(job.splits.train.labels), job.steps_per_epoch * job.recipe.batch_size
    scale = num_images / num_used
    augmented, unaugmented, from_host = (
        f"training step, {kind}" for kind in ("augmented", "not augmented", "augmented, streamed")
    )
    input_only = "input only"
    cases = {
        augmented: Case(EpochTrainer(job), scale),
        unaugmented: Case(EpochTrainer(plain), scale),
        from_host: Case(EpochTrainer(streamed), scale),
        input_only: Case(InputEpoch(job), scale),
        "input only, streamed": Case(InputEpoch(streamed), scale),
    }
    ratios = [Ratio(augmented, unaugmented, "<= 1.15"), Ratio(augmented, from_host, ">= 0.9")]
    if options.torch:
        for source, from_folder in (("decoded before", False), ("from the folder", True)):
            name = f"torch DataLoader, {_WORKERS} processes, Pillow, {source}"
            cases[name] = Case(_make_torch_epoch(options, job, from_folder), scale)
            ratios.append(Ratio(name, input_only, ">= 5"))
    for kind in ("numpy", "jax"):
        rows = _open_rows(options.data).select(range(min(_NUM_DATASETS_IMAGES, num_used))).with_format(kind)
        cases[f'datasets, with_format("{kind}"), not augmented'] = Case(
            lambda rows=rows: _count_batches(rows.iter(job.recipe.batch_size)), num_images / len(rows)
        )
    steps = "flips, random resized crops and normalization"
    title = f"An epoch of {job.info.name} ({num_images:,} images) with {steps}; the network is `cifar_cnn`"
    benchmark = Benchmark("pipeline", title, arguments, "s", cases, ratios, images=num_images)
    run_benchmark(benchmark, options.rounds, options.out)


def prepare_job(options: Options) -> Job:
    """Returns the job of `cifar_cnn` with only the first `images` training images, which are on the device."""
    # The recipe's own mean and deviation are CIFAR-10's, so measure those of the data.
    recipe = replace(load_recipe("cifar_cnn"), data=options.data, mean=None, std=None, validation=0.0)
    job = prepare(recipe)
    if options.images > len(job.order.rows):
        raise InputError(f"`images` (={options.images}) must be at most {len(job.order.rows):,}, the training images")
    return replace(job, order=replace(job.order, rows=job.order.rows[: options.images]))


class InputEpoch:
    """A call makes the inputs of all steps of an epoch, and waits for each input as a network would."""

    def __init__(self, job: Job):
        self.job, self._make = job, async_jit(make_step_input)

    def __call__(self) -> None:
        """Makes the inputs of an epoch."""
        for step, batches in enumerate(self.job.batches(0, 0)):
            jax.block_until_ready(self._make(self.job.setup, np.int32(step), batches))


def make_step_input(setup: Setup, step: Int[Array, ""], batches: Batch) -> tuple[Images, Targets]:
    """Returns the model's input and the targets for a call that runs a single step."""
    return make_input(setup, jax.tree.map(lambda leaf: leaf[0], batches), step, step_keys(setup.key, step))


def _make_torch_epoch(options: Options, job: Job, from_folder: bool) -> Callable[[], int]:
    """Returns a function that loads an epoch with PyTorch's loader, from the image files or from decoded pixels."""
    count = len(job.order.rows)
    if from_folder:
        rows = _open_rows(options.data).select(range(count))
        column = find_image_column(rows.features)
    else:
        rows, column = np.array(job.splits.train.images[:count]), None
    mean, std = (np.asarray(moment).tolist() for moment in (job.setup.mean, job.setup.std))
    dataset = ImageDataset(rows, column, job.splits.train.labels[:count], job.image_size, mean, std)
    batches = make_loader(dataset, job.recipe.batch_size, _WORKERS)
    return lambda: _count_batches(batches)


def _open_rows(data: str) -> Any:
    """Returns the training split as a `datasets.Dataset`."""
    return read_rows(find_source(data)[1])["train"]


def _count_batches(batches: Iterator[Any]) -> int:
    """Iterates over all batches and returns their number."""
    return sum(1 for _ in batches)


if __name__ == "__main__":
    run_command(main)
