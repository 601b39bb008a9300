import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn import forward, normalize, zoo
from eqxcnn.types import Classifier


@pytest.fixture(scope="module")
def lenet():
    """LeNet and its state, shapes only: `forward` rejects wrong shapes while tracing."""
    return eqx.filter_eval_shape(zoo.create_model, "lenet", key=jax.random.key(0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(jax.ShapeDtypeStruct((28, 28, 1), jnp.float32), "images", id="no batch axis"),
        pytest.param(jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.uint8), "images", id="not normalized"),
        pytest.param(jax.ShapeDtypeStruct((2, 1, 28, 28), jnp.float32), "in_channels", id="channels first"),
    ],
)
def test_wrong_images_are_refused_by_name(lenet, images, message):
    with pytest.raises(TypeCheckError, match=message):
        eqx.filter_eval_shape(forward, *lenet, images, key=None)


class Noise(Classifier):
    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        return jax.random.uniform(key, (3,)), state


def test_each_image_gets_its_own_key():
    key = jax.random.key(3)
    logits, _ = forward(*eqx.nn.make_with_state(Noise)(), jnp.zeros((2, 1, 1, 1)), key=key)
    expected = [jax.random.uniform(image_key, (3,)) for image_key in jax.random.split(key, 2)]
    np.testing.assert_array_equal(logits, expected)


def test_normalize_gives_the_same_for_pixels_and_for_floats():
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    mean, std = jnp.array([0.0, 0.2, 0.5]), jnp.array([1.0, 0.5, 0.25])
    np.testing.assert_allclose(normalize(jnp.asarray(pixels), mean, std).ravel(), [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(
        normalize(jnp.asarray(pixels / 255, jnp.float32), mean, std).ravel(), [0, 0, 2], atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.disable_jit(),
    ],
    ids=["strict dtypes", "no rank promotion", "no jit"],
)
def test_normalize_works_under_jaxs_strict_settings(config):
    pixels = jnp.array([[[[0, 255]]]], jnp.uint8)
    with config():
        found = normalize(pixels, jnp.array([0.5, 0.25]), jnp.array([0.5, 0.25]))
    assert found.tolist() == [[[[-1.0, 3.0]]]]
