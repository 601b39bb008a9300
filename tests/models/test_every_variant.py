"""What every variant of the zoo must do with numbers: the smallest images it takes, weights without a generator's cost.

`test_models.py` does more with the smallest variant of each family, gradients among it.
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


def tensor(name, shape, gain):
    """Normal values, kernels and matrices of a scale that keeps maps at about their size."""
    start, size = len(name) * 977, math.prod(shape)
    values = np.resize(NORMAL[start : start + size], shape)
    if size == max(shape, default=1):
        values *= np.float32(0.1)
        return values + np.float32("bias" not in name and "mean" not in name)
    seen = size // shape[-1] if len(shape) == 4 else shape[-1]
    values *= np.float32(np.sqrt(gain / seen))
    return values


@pytest.fixture
def forgotten():
    """A program that was compiled stays in memory otherwise."""
    yield
    jax.clear_caches()


@pytest.mark.exhaustive
# Eagerly, each operation of a deep DenseNet is compiled for each number of channels.
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("name", zoo.list_models())
def test_a_variant_in_numbers(name, tmp_path):
    row = variant(name)
    rates = {word: 0.5 for word in inspect.signature(row.make).parameters if re.search("drop.*_rate$", word)}
    arguments = {"num_classes": CLASSES, "image_size": row.smallest}
    empty = eqx.filter_eval_shape(build, name, key=jax.random.key(0), **arguments, **rates)
    # A thousand layers on one shortcut, in eval mode: their sum would grow beyond all measure.
    gain = 0.3 if name == "preact_resnet1001" else 1.5
    tensors = {each: tensor(each, shape, gain) for each, shape in tensor_shapes(*empty).items()}
    model, state = from_tensors(*empty, tensors)

    path = tmp_path / "model.safetensors"
    save_safetensors(path, to_tensors(model, state), {})
    loaded = load_safetensors(path)
    path.unlink()
    assert list(loaded) == sorted(tensors)
    assert all(np.array_equal(loaded[each], tensors[each]) for each in tensors)
    # The largest hold gigabytes.
    del loaded, tensors

    @jit_once
    def evaluate(model, images):
        return forward(model, state, images, key=None)[0]

    images = jax.random.normal(jax.random.key(1), (2, row.smallest, row.smallest, row.input[2]))
    still = eqx.nn.inference_mode(model)
    scores = np.asarray(evaluate(still, images))
    assert scores.shape == (2, CLASSES)
    assert np.isfinite(scores).all()
    assert np.ptp(scores, axis=0).any()  # else nothing is permuted
    np.testing.assert_array_equal(evaluate(still, images), scores)
    largest = np.abs(scores).max()
    np.testing.assert_allclose(evaluate(still, images[::-1]), scores[::-1], rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(forward(still, state, images, key=None)[0], scores, rtol=0, atol=1e-4 * largest)

    if rates:
        # Norms stay in eval mode: two images are too few for their statistics.
        dropping = jax.tree.map(
            lambda leaf: eqx.nn.inference_mode(leaf, False) if drops(leaf) else leaf, still, is_leaf=drops
        )
        # Eagerly again: the operations are compiled already.
        first, again, other = (forward(dropping, state, images, key=jax.random.key(seed))[0] for seed in (2, 2, 3))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, still)
    coarse = evaluate(narrow, images.astype(jnp.bfloat16))
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), scores, rtol=0, atol=0.05 * largest)


def drops(leaf):
    return isinstance(leaf, Dropout | DropPath)
