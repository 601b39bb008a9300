"""`python -m benchmarks.mlp_epoch`: an epoch of the `mlp` recipe against the loop of the write-up that it follows.

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
from eqxcnn.training.step import train_steps

from .timing import RESULTS, Benchmark, Case, Ratio, run

#: Steps of a call without compilation: it takes a whole epoch's time from a few.
FEW = 20
#: Weights `[in out]` and bias of each layer.
Params = list[tuple[Float[Array, "i o"], Float[Array, " o"]]]


@dataclass(frozen=True)
class Options:
    """Times an epoch of a perceptron on MNIST, as its write-up's loop and as this library run it."""

    data: str | None = None
    """A data set's name or folder; by default random pixels of MNIST's shape, which take the same time."""
    batches: int = 937
    """Batches of an epoch."""
    rounds: int = 15
    """How often everything is timed."""
    out: Path = RESULTS / "mlp_epoch.json"
    """The file that the results go to."""


def main(arguments: Sequence[str]) -> None:
    """Parses, measures, prints and writes."""
    options = tyro.cli(Options, prog="python -m benchmarks.mlp_epoch", args=arguments)
    batches, few = options.batches, min(FEW, options.batches)
    recipe = load_recipe("mlp")
    job = prepared(replace(recipe, steps_per_call=batches), batches, options.data)
    first = replace(job, steps_per_call=1, train_rows=job.train_rows[: few * recipe.batch_size])
    loop, epoch, step = "write-up, jit", "ours, one call an epoch", "ours, one call a step"
    slow_loop, slow_step = (f"{whose}, no jit ({few} steps, scaled)" for whose in ("write-up", "ours"))
    cases = {
        loop: Case(WriteUp(job, jax.jit(update))),
        epoch: Case(Training(job)),
        step: Case(Training(replace(job, steps_per_call=1))),
        slow_loop: Case(WriteUp(first, update), batches / few),
        slow_step: Case(Training(first, jit=False), batches / few),
    }
    ratios = (Ratio(epoch, loop, "<= 0.8"), Ratio(slow_loop, loop), Ratio(slow_step, epoch))
    data = "random pixels in MNIST's shape (they do not change the time)" if options.data is None else job.info.name
    title = f"An epoch of `mlp`: {batches} batches of {recipe.batch_size}, {data}"
    run(Benchmark("mlp_epoch", title, arguments, "s", cases, ratios), options.rounds, options.out)


def prepared(recipe: Recipe, batches: int, data: str | None = None) -> Job:
    """A recipe's job on so many batches of a data set, or of random pixels in MNIST's shape."""
    if batches < 1:
        raise InputError(f"`batches` (={batches}) must be 1 or more")
    count = batches * recipe.batch_size
    if data is not None:
        return prepare(replace(recipe, data=data, train_images=count, validation=0.0))
    # The bundled digits have MNIST's classes and channels: the model is made for them, then learns from others.
    job = prepare(replace(recipe, data="digits", image_size=(28, 28), train_images=None, validation=0.0))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, count, np.int32)
    return replace(
        job,
        train=replace(job.train, images=images, labels=labels),
        train_rows=np.arange(count, dtype=np.int32),
        setup=eqx.tree_at(lambda setup: setup.data, job.setup, (jnp.asarray(images), jnp.asarray(labels))),
    )


class Training:
    """A call is a job's next epoch as `fit` trains it, up to reading the sums; what it learns it keeps for the next."""

    def __init__(self, job: Job, *, jit: bool = True):
        self.job, self._steps = job, async_jit(train_steps, donate=True) if jit else _uncompiled
        # The steps give their state's memory away, and others start from the job's.
        self._train = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, job.make_start())

    def __call__(self) -> float:
        """Trains, and returns the mean loss."""
        train = self._train
        for batches in self.job.batches(0, 0):
            train = self._steps(self.job.setup, train, batches)
        loss = float(train.sums.loss) / int(train.sums.count)
        self._train = replace(train, sums=Sums.zero())
        return loss


def _uncompiled(setup: Setup, train: TrainState, batches: Any) -> TrainState:
    """The steps as `fit` takes them without `jit`."""
    return train_steps(setup, train, jax.tree.map(jnp.asarray, batches))


class WriteUp:
    """A call is the next epoch of the write-up's loop, from the job's weights: batches on the host, each loss read."""

    def __init__(self, job: Job, update: Callable[..., Any]):
        size, model = job.recipe.batch_size, job.make_start().model
        assert isinstance(model, MLP)
        assert isinstance(model.head, eqx.nn.Linear)
        # Its arrays are NumPy's own 64 bits wide, and each call makes 32 of them.
        pixels = job.train.images[job.train_rows].reshape(len(job.train_rows), -1) / 255.0
        labels = job.train.labels[job.train_rows].astype(np.int64)
        starts = range(0, len(labels) - size + 1, size)
        self._batches = [(pixels[at : at + size], labels[at : at + size]) for at in starts]
        self._params = [(layer.weight.T, layer.bias) for layer in (*model.hidden, model.head)]
        self._update = update

    def __call__(self) -> list[float]:
        """Trains, and returns the loss of each step."""
        losses = []
        for x, y in self._batches:
            self._params, loss = self._update(self._params, x, y, rate=0.01)
            losses.append(loss.item())
        return losses


def update(params: Params, x: Float[Array, "b i"], y: Int[Array, " b"], rate: float) -> tuple[Params, Array]:
    """A step of gradient descent and the loss before it, in plain JAX."""
    loss, gradients = jax.value_and_grad(_loss)(params, x, y)
    return jax.tree.map(lambda each, slope: each - rate * slope, params, gradients), loss


def _loss(params: Params, x: Float[Array, "b i"], y: Int[Array, " b"]) -> Float[Array, ""]:
    """The batch's mean cross-entropy."""
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = jax.nn.relu(jnp.dot(x, w) + b)
    scores = jax.nn.log_softmax(jnp.dot(x, weight) + bias)
    return -scores[jnp.arange(len(y)), y].mean()


if __name__ == "__main__":
    run_command(main)
