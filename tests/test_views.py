"""Scores averaged over views of an image, against the averages written out."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from eqxcnn.types import Classifier
from eqxcnn.views import view_logits

WEIGHT = np.random.default_rng(0).normal(size=(6 * 5 * 2, 4))
IMAGES = np.random.default_rng(1).normal(size=(3, 6, 5, 2))


class Bent(Classifier):
    """A function of all pixels that is not linear, so that an average of images is not one of scores."""

    weight: Array

    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        return jnp.tanh(image.ravel() @ self.weight), state


def bent(images):
    return np.tanh(images.reshape(len(images), -1) @ WEIGHT)


def mirrored(images):
    return (bent(images) + bent(images[:, :, ::-1])) / 2


def shifted():
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    return (mirrored(padded[:, :-2, :-2]) + mirrored(padded[:, 2:, 2:])) / 2


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ("one", lambda: bent(IMAGES)),
        ("mirror", lambda: mirrored(IMAGES)),
        ("mirror_and_shifts", lambda: (mirrored(IMAGES) + shifted()) / 2),
    ],
)
def test_scores_are_the_mean_over_the_views(views, expected):
    model, state = eqx.nn.make_with_state(Bent)(jnp.asarray(WEIGHT, jnp.float32))
    found = view_logits(model, state, jnp.asarray(IMAGES, jnp.float32), views)
    np.testing.assert_allclose(found, expected(), rtol=1e-4, atol=1e-5)
