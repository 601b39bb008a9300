import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqxcnn.augment import ContextAugment, Mix
from eqxcnn.training.inputs import make_input, step_keys
from eqxcnn.training.setup import Setup
from eqxcnn.training.step import autodiff

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8))
LABELS = jnp.arange(6)


def setup(**parts):
    return Setup(
        autodiff(), optax.sgd(0.1), parts.pop("augment", None), None, 2, jax.random.key(7), jnp.zeros(1), jnp.ones(1),
        (IMAGES, LABELS), **parts,
    )  # fmt: skip


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_no_two_purposes_of_a_step_share_a_key():
    seen = []

    def record(image, key, context):
        jax.debug.callback(lambda *keys: seen.extend(map(bits, keys)), key, context.image_key, ordered=True)
        return image

    fixed, step = setup(augment=ContextAugment(record)), jnp.int32(3)
    keys = step_keys(fixed.key, step)
    make_input(fixed, jnp.arange(6), step, keys)
    jax.effects_barrier()
    every = [*seen, bits(keys.model), bits(keys.mix)]
    assert len(every) == 6 + 6 + 2
    assert len(set(every)) == len(every)


def test_images_are_mixed_under_the_key_of_mixing():
    mix, step = Mix(mixup=1.0), jnp.int32(0)
    fixed = setup(mix=mix)
    keys = step_keys(fixed.key, step)
    images, targets = make_input(fixed, jnp.arange(6), step, keys)
    expected, share = mix(IMAGES.astype(jnp.float32) / 255, keys.mix)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(targets.share, share)


def test_the_keys_of_a_step_differ_from_those_of_other_steps():
    keys = [bits(key) for step in range(3) for key in step_keys(jax.random.key(0), jnp.int32(step))]
    assert len(set(keys)) == 9
