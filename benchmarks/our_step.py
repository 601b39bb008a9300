"""The trainer's own step of a network of the zoo, for the benchmarks that time or compile it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eqxcnn import zoo
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import autodiff, train_step
from eqxcnn.types import Labels, Pixels


def our_step(
    name: str,
    optimizer: optax.GradientTransformation,
    data: tuple[Pixels, Labels] | None = None,
    precision: str = "float32",
    image_size: int | None = None,
) -> tuple[Setup, TrainState]:
    """What a step of the network needs, images on the device included where there are any, and its first state."""
    model, state = zoo.create_model(name, image_size=image_size, key=jax.random.key(0))
    channels = zoo.card(name).input[-1]
    mean, std = jnp.full(channels, 0.5), jnp.full(channels, 0.25)
    gradients = autodiff(dtype=jnp.bfloat16 if precision == "bf16" else jnp.float32)
    setup = Setup(gradients, optimizer, None, None, 1, jax.random.key(0), mean, std, data)
    return setup, TrainState.start(model, state, optimizer)


def compiler(name: str, optimizer: optax.GradientTransformation, batch_size: int) -> Callable[[], None]:
    """Traces, lowers and compiles the step, anew at each call."""
    setup, train = our_step(name, optimizer)
    pixels = jnp.zeros((batch_size, *zoo.card(name).input), jnp.uint8)
    labels, rows = (jnp.zeros(batch_size, jnp.int32) for _ in range(2))

    def compile_step() -> None:
        jax.clear_caches()
        # A new function each time: Equinox, too, remembers what it has compiled.
        step: Any = async_jit(lambda setup, train, batch: train_step(setup, train, batch))
        step.lower(setup, train, (pixels, labels, rows)).compile()

    return compile_step
