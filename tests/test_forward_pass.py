import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import forward, normalize, zoo
from eqxcnn.errors import InputError


@pytest.fixture(scope="module")
def lenet():
    """LeNet and its state, shapes only: `forward` rejects wrong shapes while tracing."""
    return eqx.filter_eval_shape(zoo.create_model, "lenet", key=jax.random.key(0))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        pytest.param(
            (28, 28, 1), np.float32, r"\(28, 28, 1\) must be .*channels\); .*images\[None\]", id="no batch axis"
        ),
        pytest.param(
            (2, 28, 28), np.float32, r"\(2, 28, 28\) must be \(batch, height, width, ch", id="no channels axis"
        ),
        pytest.param((2, 28, 28, 1), np.uint8, r"dtype uint8 must be floating point", id="not normalized"),
        pytest.param((2, 28, 28, 1), np.int32, r"dtype int32 must be floating point", id="integers"),
        pytest.param((2, 1, 28, 28), np.float32, r"`in_channels` \(=1\) channels, channels last", id="channels first"),
    ],
)
@pytest.mark.parametrize("is_traced", [True, False])
def test_wrong_images_are_refused_in_one_sentence(lenet, shape, dtype, message, is_traced):
    def run(model, state, traced):
        return forward(model, state, traced if is_traced else np.zeros(shape, dtype), key=None)

    with pytest.raises(InputError, match=message) as caught:
        eqx.filter_eval_shape(run, *lenet, jax.ShapeDtypeStruct(shape, dtype))
    assert "\n" not in str(caught.value)


def test_a_perceptron_refuses_channels_first():
    mlp = eqx.filter_eval_shape(zoo.create_model, "mlp", in_channels=3, image_size=8, key=jax.random.key(0))
    with pytest.raises(InputError, match=r"`image` of shape \(3, 8, 8\) must be \(8, 8, 3\), channels last"):
        eqx.filter_eval_shape(forward, *mlp, jax.ShapeDtypeStruct((2, 3, 8, 8), jnp.float32), key=None)


def test_numpy_images_are_accepted():
    images = np.ones((2, 1, 1, 1), np.float32)
    model, state = eqx.nn.make_with_state(Noise)()
    logits, _ = forward(model, state, images, key=jax.random.key(3))
    np.testing.assert_array_equal(logits, forward(model, state, jnp.asarray(images), key=jax.random.key(3))[0])


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 3, 4, 4), np.float32, "of shape .1, 3, 4, 4. have 4 channels, and `mean` and `std` have 3 and 3 numbers"),
        ((4, 4, 3), np.uint8, "of shape .4, 4, 3. must be .batch, height, width, channels."),
        ((1, 4, 4, 3), np.int32, "dtype int32 must be uint8, or floating point"),
    ],
)
def test_normalize_refuses_wrong_images_in_one_sentence(shape, dtype, message):
    with pytest.raises(InputError, match=message):
        normalize(np.zeros(shape, dtype), jnp.zeros(3), np.ones(3, np.float32))


class Noise(eqx.Module):
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
