"""The trainer's step for a network of the zoo, for the benchmarks that time or compile it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqxcnn import zoo
from eqxcnn.runtime.compile import async_jit
from eqxcnn.runtime.memory import keep_freed_memory
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import autodiff, train_step, train_steps
from eqxcnn.types import Labels, Pixels

from .workloads import Workload

#: Number of images that the batches of `build_trainer_steps` are gathered from.
NUM_IMAGES = 2048


def make_trainer_step(
    name: str,
    optimizer: optax.GradientTransformation,
    data: tuple[Pixels, Labels] | None = None,
    precision: str = "float32",
    image_size: int | None = None,
) -> tuple[Setup, TrainState]:
    """Returns the setup and the initial train state of a training step; `data` are images and labels on the device."""
    model, state = zoo.create_model(name, image_size=image_size, key=jax.random.key(0))
    channels = zoo.card(name).input[-1]
    mean, std = jnp.full(channels, 0.5), jnp.full(channels, 0.25)
    gradients = autodiff(dtype=jnp.bfloat16 if precision == "bf16" else jnp.float32)
    setup = Setup(gradients, optimizer, None, None, 1, jax.random.key(0), mean, std, data)
    return setup, TrainState.start(model, state, optimizer)


def make_compile_function(name: str, optimizer: optax.GradientTransformation, batch_size: int) -> Callable[[], None]:
    """Returns a function that traces, lowers and compiles the training step, without any cache, at each call."""
    setup, train = make_trainer_step(name, optimizer)
    pixels = jnp.zeros((batch_size, *zoo.card(name).input), jnp.uint8)
    labels, rows = (jnp.zeros(batch_size, jnp.int32) for _ in range(2))

    def compile_step() -> None:
        jax.clear_caches()
        # A new function object at each call, since Equinox caches compilations by function too.
        step: Any = async_jit(lambda setup, train, batch: train_step(setup, train, batch))
        step.lower(setup, train, (pixels, labels, rows)).compile()

    return compile_step


def build_trainer_steps(workload: Workload) -> Callable[[int], None]:
    """Returns a function that runs a given number of the trainer's steps and waits for the last step.

    The images are on the device, and the memory settings are the trainer's.
    """
    keep_freed_memory()
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.integers(0, 256, (NUM_IMAGES, *workload.input), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, NUM_IMAGES, dtype=np.int32))
    setup, train = make_trainer_step(
        workload.net, workload.build_optimizer(), (pixels, labels), workload.precision, workload.image_size
    )
    carry = [train]
    call = async_jit(train_steps, donate=True)
    rows = np.stack([rng.permutation(NUM_IMAGES)[: workload.batch] for _ in range(workload.steps)]).astype(np.int32)

    def run_steps(steps: int) -> None:
        for _ in range(steps // workload.steps):
            carry[0] = call(setup, carry[0], rows)
        jax.block_until_ready(carry[0].sums.loss)

    return run_steps
