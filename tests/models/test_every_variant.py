"""Numeric tests of every variant in the zoo, on the smallest images that it takes.

`test_models.py` tests more, such as gradients, on one variant per family.
"""

import inspect
import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import forward, zoo
from eqxcnn.layers import Dropout, DropPath
from eqxcnn.registry import build, variant
from eqxcnn.runtime.compile import jit_once
from eqxcnn.weights import from_tensors, load_safetensors, save_safetensors, to_tensors
from eqxcnn.weights.tensors import tensor_shapes

CLASSES = 7
NORMAL = np.random.default_rng(0).standard_normal(2**22, np.float32)


def make_tensor(name, shape, gain):
    """Returns normally distributed values; kernels and matrices are scaled so that activations keep their magnitude.

    The values are slices of one large array, because drawing new values for the largest networks would take longer.
    """
    start, size = len(name) * 977, math.prod(shape)
    values = np.resize(NORMAL[start : start + size], shape)
    if size == max(shape, default=1):
        values *= np.float32(0.1)
        return values + np.float32("bias" not in name and "mean" not in name)
    fan_in = size // shape[-1] if len(shape) == 4 else shape[-1]
    values *= np.float32(np.sqrt(gain / fan_in))
    return values


@pytest.fixture
def fresh_caches():
    """Frees compiled programs, which stay in memory otherwise."""
    yield
    jax.clear_caches()


@pytest.mark.exhaustive
# Eager mode compiles each operation of a deep DenseNet for each number of channels.
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fresh_caches")
@pytest.mark.parametrize("name", zoo.list_models())
def test_variant_numerics(name, tmp_path):
    row = variant(name)
    rates = {word: 0.5 for word in inspect.signature(row.make).parameters if re.search("drop.*_rate$", word)}
    arguments = {"num_classes": CLASSES, "image_size": row.smallest}
    empty = eqx.filter_eval_shape(build, name, key=jax.random.key(0), **arguments, **rates)
    # The sum of a thousand residual branches would overflow in eval mode.
    gain = 0.3 if name == "preact_resnet1001" else 1.5
    tensors = {path: make_tensor(path, shape, gain) for path, shape in tensor_shapes(*empty).items()}
    model, state = from_tensors(*empty, tensors)

    file = tmp_path / "model.safetensors"
    save_safetensors(file, to_tensors(model, state), {})
    loaded = load_safetensors(file)
    file.unlink()
    assert list(loaded) == sorted(tensors)
    assert all(np.array_equal(loaded[path], tensors[path]) for path in tensors)
    # Gigabytes for the largest networks.
    del loaded, tensors

    @jit_once
    def evaluate(model, images):
        return forward(model, state, images, key=None)[0]

    images = jax.random.normal(jax.random.key(1), (2, row.smallest, row.smallest, row.input[2]))
    eval_model = eqx.nn.inference_mode(model)
    scores = np.asarray(evaluate(eval_model, images))
    assert scores.shape == (2, CLASSES)
    assert np.isfinite(scores).all()
    assert np.ptp(scores, axis=0).any()  # the images have different scores
    np.testing.assert_array_equal(evaluate(eval_model, images), scores)
    largest = np.abs(scores).max()
    np.testing.assert_allclose(evaluate(eval_model, images[::-1]), scores[::-1], rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(forward(eval_model, state, images, key=None)[0], scores, rtol=0, atol=1e-4 * largest)

    if rates:
        # BatchNorm stays in eval mode: two images are too few for its statistics.
        dropping = jax.tree.map(
            lambda leaf: eqx.nn.inference_mode(leaf, False) if is_drop(leaf) else leaf, eval_model, is_leaf=is_drop
        )
        # In eager mode, whose operations are compiled already.
        first, again, other = (forward(dropping, state, images, key=jax.random.key(seed))[0] for seed in (2, 2, 3))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, eval_model)
    half_scores = evaluate(half, images.astype(jnp.bfloat16))
    assert half_scores.dtype == jnp.bfloat16
    np.testing.assert_allclose(half_scores.astype(jnp.float32), scores, rtol=0, atol=0.05 * largest)


def is_drop(leaf):
    return isinstance(leaf, Dropout | DropPath)
