"""`python -m benchmarks.pipeline`: images from a folder to a training step, augmented on the way; ours and others'."""

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

from .mlp_epoch import Training
from .timing import RESULTS, Benchmark, Case, Ratio, run
from .torch_loader import Pictures, make_loader

#: `datasets` would need half a minute for an epoch in its slowest format: its time is told from this many images.
_FEW = 1024
_WORKERS = 2


@dataclass(frozen=True)
class Options:
    """Times the input of `cifar_cnn`, alone and with its training step: flips, random crops, normalization."""

    data: str = "cifar10"
    """A data set's name or folder."""
    images: int = 8192
    """How many of its training images are gone through in each round; times are scaled to all of them."""
    torch: bool = True
    """Whether torch's DataLoader is timed too, which needs torch and torchvision."""
    rounds: int = 7
    """How often everything is timed."""
    out: Path = RESULTS / "pipeline.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.pipeline", args=arguments)
    if options.images < load_recipe("cifar_cnn").batch_size:
        raise InputError(f"`images` (={options.images}) must be a batch of 128 or more")
    job = prepared(options)
    plain, streamed = (replace(job, setup=replace(job.setup, **{part: None})) for part in ("augment", "data"))
    whole, used = len(job.train.labels), job.steps_per_epoch * job.recipe.batch_size
    trained, unchanged, from_disk = (
        f"training step, {words}" for words in ("augmented", "not augmented", "augmented, streamed")
    )
    alone = "input alone"
    cases = {
        trained: Case(Training(job), whole / used),
        unchanged: Case(Training(plain), whole / used),
        from_disk: Case(Training(streamed), whole / used),
        alone: Case(Input(job), whole / used),
        "input alone, streamed": Case(Input(streamed), whole / used),
    }
    ratios = [Ratio(trained, unchanged, "<= 1.15"), Ratio(trained, from_disk, ">= 0.9")]
    if options.torch:
        for words, from_folder in (("decoded before", False), ("from the folder", True)):
            name = f"torch DataLoader, {_WORKERS} processes, Pillow, {words}"
            cases[name] = Case(_loader(options, job, from_folder), whole / used)
            ratios.append(Ratio(name, alone, ">= 5"))
    for form in ("numpy", "jax"):
        rows = _rows(options.data).select(range(min(_FEW, used))).with_format(form)
        cases[f'datasets, with_format("{form}"), nothing changed'] = Case(
            lambda rows=rows: _go_through(rows.iter(job.recipe.batch_size)), whole / len(rows)
        )
    title = f"An epoch of {job.info.name}, {whole:,} images: flips, random resized crops, normalization; `cifar_cnn`"
    benchmark = Benchmark("pipeline", title, arguments, "s", cases, ratios, images=whole)
    run(benchmark, options.rounds, options.out)


def prepared(options: Options) -> Job:
    """The recipe's job on the first images of the data, which lie on the device."""
    # The mean and deviation are measured: the recipe's own are CIFAR-10's.
    recipe = replace(load_recipe("cifar_cnn"), data=options.data, mean=None, std=None, validation=0.0)
    job = prepare(recipe)
    if options.images > len(job.train_rows):
        raise InputError(f"`images` (={options.images}) must be at most the {len(job.train_rows):,} that there are")
    return replace(job, train_rows=job.train_rows[: options.images])


class Input:
    """A call makes an epoch's batches as the step makes them, each waited for as a network would."""

    def __init__(self, job: Job):
        self.job, self._make = job, async_jit(_model_input)

    def __call__(self) -> None:
        """Makes them."""
        for step, batches in enumerate(self.job.batches(0, 0)):
            jax.block_until_ready(self._make(self.job.setup, np.int32(step), batches))


def _model_input(setup: Setup, step: Int[Array, ""], batches: Batch) -> tuple[Images, Targets]:
    """The input of a call's only step."""
    return make_input(setup, jax.tree.map(lambda leaf: leaf[0], batches), step, step_keys(setup.key, step))


def _loader(options: Options, job: Job, from_folder: bool) -> Callable[[], int]:
    """An epoch of torch's loader over the same images, from the rows of the folder or from their pixels in memory."""
    count = len(job.train_rows)
    if from_folder:
        rows = _rows(options.data).select(range(count))
        column = find_image_column(rows.features)
    else:
        rows, column = np.array(job.train.images[:count]), None
    mean, std = (np.asarray(each).tolist() for each in (job.setup.mean, job.setup.std))
    pictures = Pictures(rows, column, job.train.labels[:count], job.image_size, mean, std)
    batches = make_loader(pictures, job.recipe.batch_size, _WORKERS)
    return lambda: _go_through(batches)


def _rows(data: str) -> Any:
    """The training split as `datasets` opens it."""
    return read_rows(find_source(data)[1])["train"]


def _go_through(batches: Iterator[Any]) -> int:
    """Takes every batch and counts them."""
    return sum(1 for _ in batches)


if __name__ == "__main__":
    run_command(main)
