"""The user's own parts of a run, for `test_own_parts.py` and the processes that the tests start."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqxcnn import data, metrics
from eqxcnn.training import Recipe, fit, resume


class Net(eqx.Module):
    """A network of `eqx.nn` layers with a state, dropout and channels-first feature maps."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear
    width: int

    def __init__(self, width=4, *, key):
        first, second = jax.random.split(key)
        self.width = width
        self.conv = eqx.nn.Conv2d(1, width, 3, 2, key=first)
        self.norm = eqx.nn.BatchNorm(width, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(0.2)
        self.head = eqx.nn.Linear(9 * width, 4, key=second)

    def __call__(self, image, state, *, key):
        maps, state = self.norm(self.conv(jnp.moveaxis(image, -1, 0)), state)
        return self.head(self.drop(jax.nn.relu(maps).ravel(), key=key)), state


def make_model(seed=0, width=4):
    return eqx.nn.make_with_state(Net)(width, key=jax.random.key(seed))


def make_data(seed=0):
    """Four classes of 8x8 images: a bright quarter on noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 360)
    images = rng.uniform(0, 0.6, (360, 8, 8, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 0.4
    test = images[300:], labels[300:]
    return data.from_arrays(images[:300], labels[:300], test=test, class_names=["a", "b", "c", "d"])


def make_optimizer(momentum=0.9):
    return lambda schedule: optax.sgd(schedule, momentum)


def focal(logits, labels, gamma=2.0):
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    return -((1 - jnp.exp(log_probability)) ** gamma) * log_probability


def add_noise(image, key):
    return jnp.clip(image + 0.1 * jax.random.normal(key, image.shape), 0, 1)


RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.1, checkpoint_seconds=0.0, validation=0.2, mixup=0.2)


def make_parts(momentum=0.9, seed=0, width=4):
    return {
        "model": make_model(seed, width),
        "data": make_data(),
        "optimizer": make_optimizer(momentum),
        "loss": focal,
        "augment": add_noise,
        "metrics": {"top2": metrics.top_k(2), "brier": metrics.brier_score()},
    }


def main(command, folder):
    if command == "fit":
        fit(RECIPE, **make_parts(), runs=Path(folder), name="run")
    else:
        resume(folder, **make_parts())
