import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn import forward, normalize, zoo


def test_images_without_a_batch_axis_are_refused_by_name():
    model, state = zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(TypeCheckError, match=r"images"):
        forward(model, state, jnp.zeros((28, 28, 1)), key=None)


def test_channels_first_images_are_refused():
    model, state = zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(TypeCheckError, match=r"in_channels"):
        forward(model, state, jnp.zeros((2, 1, 28, 28)), key=None)


def test_pixels_are_refused_until_normalized():
    model, state = zoo.create_model("lenet", key=jax.random.key(0))
    with pytest.raises(TypeCheckError, match=r"images"):
        forward(model, state, jnp.zeros((2, 28, 28, 1), jnp.uint8), key=None)


def test_normalize_is_the_same_for_pixels_and_for_floats():
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    mean, std = jnp.array([0.0, 0.2, 0.5]), jnp.array([1.0, 0.5, 0.25])
    np.testing.assert_allclose(normalize(jnp.asarray(pixels), mean, std).ravel(), [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(
        normalize(jnp.asarray(pixels / 255, jnp.float32), mean, std).ravel(), [0, 0, 2], atol=1e-6
    )
