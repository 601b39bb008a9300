"""A short run of a dense network with weights of any type, for the tests of unusual parts."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, prepare
from eqxcnn.training.parts import Parts

DIGITS = Recipe(
    model="own", data="digits", image_size=(8, 8), epochs=3, train_images=96, batch_size=32, validation=0.0,
    checkpoint_seconds=0.0,
)  # fmt: skip


class Dense(eqx.Module):
    """A dense network whose weights may have any type."""

    weight: object

    def __init__(self, weight=None):
        drawn = 0.1 * np.random.default_rng(0).normal(size=(10, 64))
        self.weight = drawn.astype(np.float32) if weight is None else weight(drawn)

    def __call__(self, image):
        return jnp.asarray(self.weight) @ image.ravel()


def refused(message, **parts):
    """Checks that a run with these parts is refused before its first step."""
    recipe = parts.pop("recipe", DIGITS)
    with pytest.raises(InputError, match=message):
        prepare(recipe, Parts(**{"model": Dense(), **parts}))
