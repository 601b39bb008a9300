"""Scores averaged over views of an image, compared with averages computed by NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from eqxcnn.views import NUM_VIEWS, eval_logits, view_logits

WEIGHT = np.random.default_rng(0).normal(size=(6 * 5 * 2, 4)) / 8
IMAGES = np.random.default_rng(1).normal(size=(3, 6, 5, 2))


class Tanh(eqx.Module):
    """A nonlinear function of all pixels, so the mean of the scores is not the score of the mean image."""

    weight: Array
    dropout: eqx.nn.Dropout

    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        return jnp.tanh(self.dropout(image, key=key).ravel() @ self.weight), state


@pytest.fixture(scope="module")
def model_and_state():
    """A model in training mode: without a key its dropout raises."""
    return eqx.nn.make_with_state(Tanh)(jnp.asarray(WEIGHT, jnp.float32), eqx.nn.Dropout(0.5))


def scores(images):
    return np.tanh(images.reshape(len(images), -1) @ WEIGHT)


def mirror_scores(images):
    return (scores(images) + scores(images[:, :, ::-1])) / 2


def mirror_and_shift_scores(images):
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    shifted = (mirror_scores(padded[:, :-2, :-2]) + mirror_scores(padded[:, 2:, 2:])) / 2
    return (mirror_scores(images) + shifted) / 2


EXPECTED = {"one": scores, "mirror": mirror_scores, "mirror_and_shifts": mirror_and_shift_scores}


@pytest.mark.parametrize("views", EXPECTED)
def test_scores_are_averaged_over_the_views(model_and_state, views):
    model, state = model_and_state
    found = view_logits(eqx.nn.inference_mode(model), state, jnp.asarray(IMAGES, jnp.float32), views)
    np.testing.assert_allclose(found, EXPECTED[views](IMAGES), rtol=1e-4, atol=1e-5)


def test_number_of_views():
    assert NUM_VIEWS == {"one": 1, "mirror": 2, "mirror_and_shifts": 6}


@pytest.mark.parametrize("views", EXPECTED)
def test_eval_logits_normalizes_and_uses_eval_mode(model_and_state, views):
    model, state = model_and_state
    pixels = np.random.default_rng(2).integers(0, 256, (3, 6, 5, 2), np.uint8)
    mean, std = np.array([0.25, 0.5]), np.array([0.5, 0.25])
    found = eval_logits(model, state, *map(jnp.asarray, (pixels, mean.astype("f4"), std.astype("f4"))), views)
    np.testing.assert_allclose(found, EXPECTED[views]((pixels / 255 - mean) / std), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.disable_jit(),
    ],
    ids=["strict dtypes", "no rank promotion", "no jit"],
)
def test_views_work_under_jaxs_strict_settings(model_and_state, config):
    pixels, half = jnp.full((1, 6, 5, 2), 51, jnp.uint8), jnp.full(2, 0.5)
    with config():
        found = eval_logits(*model_and_state, pixels, half, half, "mirror_and_shifts")
    np.testing.assert_allclose(found, mirror_and_shift_scores(np.full((1, 6, 5, 2), -0.6)), rtol=1e-4, atol=1e-5)
