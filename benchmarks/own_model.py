"""`python -m benchmarks.own_model`: a training step of a user's own network, and of the same network from the zoo.

The user's network is the MNIST CNN as a plain Equinox module without state and key, passed to the trainer as an object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import tyro
from jaxtyping import Array, Float

from eqxcnn.cli import run_command
from eqxcnn.layers import AvgPool, Conv
from eqxcnn.training import load_recipe
from eqxcnn.training.parts import Parts

from .mlp_epoch import EpochTrainer, prepare_job
from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark


@dataclass(frozen=True)
class Options:
    """Measure training steps of the MNIST CNN, as a network of the zoo and as a user's network, on random pixels."""

    steps: int = 50
    """Steps per measurement."""
    rounds: int = 21
    """Measurements of each case."""
    out: Path = RESULTS / "own_model.json"
    """Path of the results file."""


class OwnNetwork(eqx.Module):
    """The MNIST CNN, written as a user would write it."""

    conv1: Conv
    conv2: Conv
    pool: AvgPool
    fc1: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 4)
        self.conv1, self.conv2 = Conv(1, 32, 3, key=keys[0]), Conv(32, 64, 3, key=keys[1])
        self.pool = AvgPool(2)
        self.fc1 = eqx.nn.Linear(7 * 7 * 64, 256, key=keys[2])
        self.head = eqx.nn.Linear(256, 10, key=keys[3])

    def __call__(self, image: Float[Array, "28 28 1"]) -> Float[Array, "10"]:
        maps = self.pool(jax.nn.relu(self.conv1(image)))
        maps = self.pool(jax.nn.relu(self.conv2(maps)))
        return self.head(jax.nn.relu(self.fc1(maps.ravel())))


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.own_model", args=arguments)
    recipe = load_recipe("mnist_cnn").replace(steps_per_call=1)
    zoo = prepare_job(recipe, options.steps)
    own = prepare_job(recipe, options.steps, parts=Parts(model=OwnNetwork(key=jax.random.key(0))))
    cases = {name: Case(EpochTrainer(job), 1 / options.steps) for name, job in (("own", own), ("zoo", zoo))}
    title = f"A step of the MNIST CNN, batch size {recipe.batch_size}, random pixels of MNIST's shape"
    benchmark = Benchmark("own_model", title, arguments, "ms", cases, [Ratio("own", "zoo", "<= 1.02")])
    run_benchmark(benchmark, options.rounds, options.out)


if __name__ == "__main__":
    run_command(main)
