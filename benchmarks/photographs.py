"""`python -m benchmarks.photographs`: training on photographs that are decoded each time they are read.

Makes synthetic JPEG files of 500x375 pixels and about 100 kB, and trains on random crops of them, resized to
`--image-size`, with `decode: stream`. Decoding and the training step are timed alone and together. On a CPU, they
compete for the same cores. In a further case, the training step is replaced by a pause of the same length as decoding;
this case shows how well decoding overlaps with the steps of a separate device. Memory and the time until the first step
are measured in processes of `python -m eqxcnn.train`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import tyro

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.recipe.files import to_yaml
from eqxcnn.runtime.memory import keep_freed_memory
from eqxcnn.training import Recipe, prepare

from .markdown import format_number
from .photograph_cases import BOTH, DECODING, INPUT, RATIO, SCALE, STEP, TORCH, WAITING, make_cases
from .startup import MOMENTS, QUARTILES, Probe, format_quartiles, run_probe
from .synthetic_photographs import Photographs
from .timing import RESULTS, Benchmark, Ratio, ResultTable, check_options, measure, report

#: One test photograph for this many training photographs.
_TEST_SHARE = 50
#: The memory of the training process is read after these multiples of `images_per_epoch`.
_EPOCHS = (1, 2, 3)
#: The moments to report: without the end of the process, which depends on the length of the run.
_MOMENTS = {name: phrase for name, phrase in MOMENTS.items() if name != "ended"}


@dataclass(frozen=True)
class Options:
    """Measure the time and the memory of training on photographs that are decoded while training."""

    folder: Path = Path("build/photographs")
    """Folder of the synthetic photographs: made if it does not exist, else reused. 50,000 photographs take 5 GB."""
    photographs: int = 50_000
    """Training photographs in the folder."""
    layout: Literal["folders", "parquet"] = "folders"
    """Class folders or parquet files."""
    model: str = "squeezenet1_1"
    """The model to train."""
    image_size: int = 224
    """Side of the model's input."""
    batch_size: int = 32
    """Images per step."""
    images: int = 4096
    """Images per measurement."""
    images_per_epoch: int = 10_000
    """The memory of the training process is measured three times, each time after this many images."""
    torch: bool = True
    """Also time PyTorch's DataLoader; needs torch and torchvision, and class folders."""
    rounds: int = 5
    """Measurements of each case."""
    out: Path = RESULTS / "photographs.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, makes the photographs, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.photographs", args=arguments)
    check_options(options.rounds, options.out)
    _check_counts(options)
    classes = min(max(options.photographs // 500, 2), 100)
    made = Photographs(options.photographs, max(options.photographs // _TEST_SHARE, classes), classes, options.layout)
    made.write(options.folder)
    probes = probe_process(options)
    keep_freed_memory()
    num_batches = options.images // options.batch_size
    job = prepare(make_recipe(options, num_batches))
    seconds = measure(make_cases(job, num_batches, options.torch), options.rounds)
    job.close()
    size = options.image_size
    title = (
        f"{options.photographs:,} photographs of 500x375 pixels, cropped to {size}x{size}; `{options.model}`, "
        f"batches of {options.batch_size}"
    )
    benchmark = Benchmark(
        "photographs", title, arguments, "s", {}, make_ratios(seconds),
        images=num_batches * options.batch_size, make_tables=lambda _: make_tables(options, probes),
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


def make_recipe(options: Options, steps: int) -> Recipe:
    """Returns a recipe that trains for `steps` steps."""
    size = options.image_size
    crop = f"random_resized_crop(scale={SCALE}, ratio={RATIO})"
    return Recipe(
        model=options.model, data=str(options.folder.resolve()), decode="stream", image_size=(size, size),
        validation=0.0, batch_size=options.batch_size, epochs=steps / (options.photographs // options.batch_size),
        learning_rate=0.01, augment=("flip_horizontal", crop),
    )  # fmt: skip


def make_ratios(seconds: Mapping[str, Sequence[float]]) -> list[Ratio]:
    """Returns the ratios to report, the first of which is max(time of decoding, time of a step) / time of both."""
    slower = max((DECODING, STEP), key=lambda name: float(np.median(seconds[name])))
    ratios = [Ratio(slower, BOTH, ">= 0.9"), Ratio(DECODING, WAITING, ">= 0.9")]
    return [*ratios, Ratio(TORCH, INPUT, ">= 1.3")] if TORCH in seconds else ratios


def make_tables(options: Options, probes: Sequence[Probe]) -> list[ResultTable]:
    """Returns tables of the training processes: the times of `_MOMENTS`, and the memory of the first process."""
    first = probes[0]
    steps = options.images_per_epoch // options.batch_size
    memory = {f"after {epoch * steps * options.batch_size:,} images": first.memory[epoch * steps] for epoch in _EPOCHS}
    seconds = {f"until {phrase}": [probe.seconds[moment] for probe in probes] for moment, phrase in _MOMENTS.items()}
    return [
        ResultTable(("seconds from the start of the process", *QUARTILES), format_quartiles(seconds)),
        ResultTable(
            ("resident memory of the process", "MiB"),
            [(when, format_number(size)) for when, size in (memory | {"peak": first.peak}).items()],
        ),
    ]


def probe_process(options: Options) -> list[Probe]:
    """Trains in new processes: the first trains on `3 * images_per_epoch` images, and each further one for one step."""
    probes = []
    most = max(_EPOCHS) * (options.images_per_epoch // options.batch_size)
    for steps in (most, *[1] * (options.rounds - 1)):
        with TemporaryDirectory() as folder:
            recipe = Path(folder) / "recipe.yaml"
            recipe.write_text(to_yaml(make_recipe(options, steps)), encoding="utf-8")
            probes.append(run_probe("--recipe", str(recipe)))
    return probes


if __name__ == "__main__":
    run_command(main)
