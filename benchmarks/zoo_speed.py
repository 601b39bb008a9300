"""`python -m benchmarks.zoo_speed`: the speed of training and prediction for the networks with weights in the package.

Training times the trainer's compiled step, with the settings of the recipe of the weights, such as batch size,
precision and augmentation. The training images are random pixels in the data set's shape, already on the device.
Prediction calls the loaded classifier with `uint8` pixels in memory, in batches of 64 and of one image, with one view
of each image. All cases run in one process, with the trainer's memory settings. `python -m benchmarks.zoo_pages` puts
the figures into the page [all models](zoo.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from eqxcnn import load
from eqxcnn.cli import run_command
from eqxcnn.data import from_arrays
from eqxcnn.errors import InputError
from eqxcnn.runtime.memory import keep_freed_memory
from eqxcnn.training import load_recipe, prepare
from eqxcnn.training.epochs import compile_steps
from eqxcnn.training.parts import Parts
from eqxcnn.weights.bundled import BUNDLED, Bundled

from .timing import RESULTS, Benchmark, Case, check_options, make_repeated_case, run_benchmark

#: The kinds of cases in the results: images per second of training, and of prediction by batch size.
TRAINING, PREDICTION, PREDICTION_OF_ONE = "training", "prediction, 64 images", "prediction, 1 image"
_BATCHES = {PREDICTION: 64, PREDICTION_OF_ONE: 1}
#: Smallest number of images that training batches are gathered from.
_MIN_IMAGES = 2048


@dataclass(frozen=True)
class Options:
    """Measure training steps and predictions of the networks with trained weights in the package."""

    models: tuple[str, ...] = tuple(BUNDLED)
    """Networks; by default all with trained weights in the package."""
    rounds: int = 5
    """Measurements of each case."""
    seconds: float = 0.5
    """Approximate duration of one measurement."""
    out: Path = RESULTS / "zoo_speed.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.zoo_speed", args=arguments)
    check_options(options.rounds, options.out)
    for name in options.models:
        if name not in BUNDLED:
            raise InputError(f"`models` (={name!r}) must be networks with trained weights: {', '.join(BUNDLED)}")
    # As the trainer does before a run.
    keep_freed_memory()
    cases = {
        case_name(name, kind): case
        for name in options.models
        for kind, case in make_cases(BUNDLED[name], options.seconds).items()
    }
    title = "Milliseconds per image, and images per second, of the networks with trained weights"
    benchmark = Benchmark("zoo_speed", title, arguments, "ms", cases, (), warm_up=False, images=1)
    run_benchmark(benchmark, options.rounds, options.out)


def case_name(model: str, kind: str) -> str:
    """Returns a case's name in the results."""
    return f"{model}, {kind}"


def make_cases(row: Bundled, seconds: float) -> dict[str, Case]:
    """Returns the cases of a network, by kind; each case reports the time per image."""
    run, images = build_training(row)
    cases = {TRAINING: make_repeated_case(run, seconds, 1 / images)}
    for kind, batch in _BATCHES.items():
        cases[kind] = make_repeated_case(build_prediction(row, batch), seconds, 1 / batch)
    return cases


def build_training(row: Bundled) -> tuple[Callable[[int], Any], int]:
    """Returns a function that calls the steps a given number of times, and the number of images in each such call."""
    recipe = load_recipe(row.recipe)
    recipe = recipe.replace(validation=0.0, steps_per_call=recipe.steps_per_call or 1)
    images_per_call = recipe.batch_size * (recipe.steps_per_call or 1)
    count = max(_MIN_IMAGES, images_per_call)
    pixels, labels = make_images(row, count), np.arange(count, dtype=np.int32) % len(row.classes)
    data = from_arrays(pixels, labels, test=(pixels[:64], labels[:64]))
    recipe = recipe.replace(init_images=min(recipe.init_images, count))
    job = prepare(recipe, Parts(data=data))
    steps, batches = compile_steps(job.recipe, devices=job.devices), next(job.all_batches(0))
    carry = [job.make_start()]

    def run(calls: int) -> None:
        for _ in range(calls):
            carry[0] = steps(job.setup, carry[0], batches)
        jax.block_until_ready(carry[0].sums.loss)

    return run, images_per_call


def build_prediction(row: Bundled, batch: int) -> Callable[[int], Any]:
    """Returns a function that classifies the same batch a number of times."""
    classifier, pixels = load(row.model), make_images(row, batch)

    def run(calls: int) -> None:
        for _ in range(calls):
            np.asarray(classifier(pixels))

    return run


def make_images(row: Bundled, count: int) -> np.ndarray:
    """Returns random pixels `uint8[count h w c]` of the size that the weights expect."""
    shape = (count, *row.preprocess.size, row.preprocess.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


if __name__ == "__main__":
    run_command(main)
