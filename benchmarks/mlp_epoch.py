"""`python -m benchmarks.mlp_epoch`: an epoch of the `mlp` recipe compared with the training loop of its write-up.

The write-up: https://www.jtrive.com/posts/intro-to-jax-part-3/intro-to-jax-part-3.html
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.models.mlp import MLP
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import Job, Recipe, Setup, Sums, TrainState, load_recipe, prepare
from eqxcnn.training.parts import Parts
from eqxcnn.training.step import train_steps

from .timing import RESULTS, Benchmark, Case, Ratio, run_benchmark

#: An uncompiled epoch would take too long, so its time is scaled up from this many steps.
NUM_UNCOMPILED_STEPS = 20
#: Weights `[in out]` and bias of each layer.
Params = list[tuple[Float[Array, "i o"], Float[Array, " o"]]]


@dataclass(frozen=True)
class Options:
    """Time an epoch of a perceptron on MNIST, with the loop of its write-up and with this library."""

    data: str | None = None
    """A data set's name or folder; by default, images of random pixels in MNIST's shape, for which a
    step takes as long as for MNIST."""
    batches: int = 937
    """Batches per epoch."""
    rounds: int = 15
    """Measurements of each case."""
    out: Path = RESULTS / "mlp_epoch.json"
    """Path of the results file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, runs the measurements, and writes and prints the results."""
    options = tyro.cli(Options, prog="python -m benchmarks.mlp_epoch", args=arguments)
    batches, few = options.batches, min(NUM_UNCOMPILED_STEPS, options.batches)
    recipe = load_recipe("mlp")
    job = prepare_job(replace(recipe, steps_per_call=batches), batches, options.data)
    short_job = replace(job, steps_per_call=1, order=replace(job.order, rows=job.order.rows[: few * recipe.batch_size]))
    loop, epoch, step = "write-up, jit", "ours, one call per epoch", "ours, one call per step"
    slow_loop, slow_step = (f"{library}, no jit ({few} steps, scaled)" for library in ("write-up", "ours"))
    cases = {
        loop: Case(WriteUpLoop(job, jax.jit(sgd_update))),
        epoch: Case(EpochTrainer(job)),
        step: Case(EpochTrainer(replace(job, steps_per_call=1))),
        slow_loop: Case(WriteUpLoop(short_job, sgd_update), batches / few),
        slow_step: Case(EpochTrainer(short_job, jit=False), batches / few),
    }
    ratios = (Ratio(epoch, loop, "<= 0.8"), Ratio(slow_loop, loop), Ratio(slow_step, epoch))
    data = "images of random pixels in MNIST's shape (training takes as long as on MNIST)"
    data = data if options.data is None else job.info.name
    title = f"An epoch of `mlp`: {batches} batches of {recipe.batch_size}, {data}"
    run_benchmark(Benchmark("mlp_epoch", title, arguments, "s", cases, ratios), options.rounds, options.out)


def prepare_job(recipe: Recipe, batches: int, data: str | None = None, parts: Parts | None = None) -> Job:
    """Returns a recipe's job with `batches` training batches of a data set, or of random pixels of MNIST's shape.

    **Arguments:**

    - `parts`: the user's own parts of the run.
    """
    if batches < 1:
        raise InputError(f"`batches` (={batches}) must be 1 or more")
    count = batches * recipe.batch_size
    if data is not None:
        return prepare(replace(recipe, data=data, train_images=count, validation=0.0), parts)
    # The bundled digits have MNIST's classes and channels: build the model for them, then replace the images.
    job = prepare(replace(recipe, data="digits", image_size=(28, 28), train_images=None, validation=0.0), parts)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, count, np.int32)
    return replace(
        job,
        splits=replace(job.splits, train=replace(job.splits.train, images=images, labels=labels)),
        order=replace(job.order, rows=np.arange(count, dtype=np.int32)),
        setup=eqx.tree_at(lambda setup: setup.data, job.setup, (jnp.asarray(images), jnp.asarray(labels))),
    )


class EpochTrainer:
    """Trains one epoch of a job per call, as `fit` does, and reads the metrics; weights carry over between calls."""

    def __init__(self, job: Job, *, jit: bool = True):
        self.job, self._steps = job, async_jit(train_steps, donate=True) if jit else _train_steps_uncompiled
        # Copied, because the steps donate their state, and other cases start from the job's state too.
        self._train = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, job.make_start())

    def __call__(self) -> float:
        """Trains an epoch and returns the mean loss."""
        train = self._train
        for batches in self.job.batches(0, 0):
            train = self._steps(self.job.setup, train, batches)
        loss = float(train.sums.loss) / int(train.sums.count)
        self._train = replace(train, sums=Sums.zero())
        return loss


def _train_steps_uncompiled(setup: Setup, train: TrainState, batches: Any) -> TrainState:
    """Runs steps as `fit` does with `jit=False`."""
    return train_steps(setup, train, jax.tree.map(jnp.asarray, batches))


class WriteUpLoop:
    """Trains one epoch per call with the write-up's loop, which keeps batches on the host and reads each step's loss.

    The first call starts from the job's initial weights; weights carry over between calls.
    """

    def __init__(self, job: Job, update: Callable[..., Any]):
        size, model = job.recipe.batch_size, job.make_start().model
        assert isinstance(model, MLP)
        assert isinstance(model.head, eqx.nn.Linear)
        # The write-up keeps 64-bit NumPy arrays; JAX converts each batch to 32 bits when it is passed to `update`.
        train, rows = job.splits.train, job.order.rows
        pixels = train.images[rows].reshape(len(rows), -1) / 255.0
        labels = train.labels[rows].astype(np.int64)
        starts = range(0, len(labels) - size + 1, size)
        self._batches = [(pixels[start : start + size], labels[start : start + size]) for start in starts]
        self._params = [(layer.weight.T, layer.bias) for layer in (*model.hidden, model.head)]
        self._update = update

    def __call__(self) -> list[float]:
        """Trains an epoch and returns the loss of each step."""
        losses = []
        for x, y in self._batches:
            self._params, loss = self._update(self._params, x, y, rate=0.01)
            losses.append(loss.item())
        return losses


def sgd_update(params: Params, x: Float[Array, "b i"], y: Int[Array, " b"], rate: float) -> tuple[Params, Array]:
    """Takes a step of gradient descent in plain JAX; returns the new parameters, and the loss before the step."""
    loss, gradients = jax.value_and_grad(_mean_cross_entropy)(params, x, y)
    return jax.tree.map(lambda param, gradient: param - rate * gradient, params, gradients), loss


def _mean_cross_entropy(params: Params, x: Float[Array, "b i"], y: Int[Array, " b"]) -> Float[Array, ""]:
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = jax.nn.relu(jnp.dot(x, w) + b)
    log_probabilities = jax.nn.log_softmax(jnp.dot(x, weight) + bias)
    return -log_probabilities[jnp.arange(len(y)), y].mean()


if __name__ == "__main__":
    run_command(main)
