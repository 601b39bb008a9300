import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqxcnn.augment import ContextAugment, Mix
from eqxcnn.training.inputs import make_input, step_keys
from eqxcnn.training.setup import Setup
from eqxcnn.training.step import autodiff

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8))
LABELS = jnp.arange(6)


def make_setup(**parts):
    return Setup(
        autodiff(), optax.sgd(0.1), parts.pop("augment", None), None, 2, jax.random.key(7), jnp.zeros(1), jnp.ones(1),
        (IMAGES, LABELS), **parts,
    )  # fmt: skip


def key_bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_keys_of_a_step_are_all_different():
    recorded = []

    def record(image, key, context):
        jax.debug.callback(lambda *keys: recorded.extend(map(key_bits, keys)), key, context.image_key, ordered=True)
        return image

    job_setup, step = make_setup(augment=ContextAugment(record)), jnp.int32(3)
    keys = step_keys(job_setup.key, step)
    make_input(job_setup, jnp.arange(6), step, keys)
    jax.effects_barrier()
    all_keys = [*recorded, key_bits(keys.model), key_bits(keys.mix)]
    assert len(all_keys) == 6 + 6 + 2
    assert len(set(all_keys)) == len(all_keys)


@pytest.mark.slow
def test_images_are_mixed_with_the_mix_key():
    mix, step = Mix(mixup=1.0), jnp.int32(0)
    job_setup = make_setup(mix=mix)
    keys = step_keys(job_setup.key, step)
    images, targets = make_input(job_setup, jnp.arange(6), step, keys)
    expected, share = mix(IMAGES.astype(jnp.float32) / 255, keys.mix)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(targets.share, share)


def test_keys_differ_between_steps():
    keys = [key_bits(key) for step in range(3) for key in step_keys(jax.random.key(0), jnp.int32(step))]
    assert len(set(keys)) == 9
