"""Convolutions with a bias, a shortcut and an activation equal the separate operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.fused_convolution import convolve_fused
from eqxcnn.layers.cpu.implementation import XLA, Window

SAME = ((1, 1), (1, 1))
#: Batch size, height and width, kernel `[kh kw i/groups o]`, stride, edges, groups, and whether oneDNN is called.
CASES = {
    "3x3": (2, 9, (3, 3, 16, 32), 1, SAME, 1, True),
    "strided": (3, 10, (3, 3, 8, 16), 2, ((0, 1), (0, 1)), 1, True),
    "grouped": (1, 16, (3, 3, 16, 64), 1, SAME, 2, True),
    "depthwise": (2, 12, (3, 3, 1, 24), 2, SAME, 24, True),
    "large product": (2, 33, (1, 1, 64, 64), 1, ((0, 0), (0, 0)), 1, True),
    "strided product": (4, 66, (1, 1, 64, 64), 2, ((0, 0), (0, 0)), 1, True),
    "small product": (2, 5, (1, 1, 8, 16), 1, ((0, 0), (0, 0)), 1, False),
    "single image": (1, 16, (3, 3, 32, 32), 1, SAME, 1, False),
    "small single image": (1, 6, (3, 3, 8, 8), 1, SAME, 1, False),
    "single RGB image": (1, 16, (3, 3, 3, 8), 2, ((0, 1), (1, 2)), 1, False),
    "single RGB image with many taps": (1, 16, (5, 5, 3, 8), 1, SAME, 1, True),
    "RGB images": (2, 16, (3, 3, 3, 8), 1, SAME, 1, True),
    "gray images": (3, 17, (5, 5, 1, 6), 2, ((2, 2), (1, 3)), 1, False),
    "gray images with many taps": (3, 12, (7, 7, 1, 6), 1, SAME, 1, True),
}
ACTIVATIONS = {
    None: lambda x: x, "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x / (1 + np.exp(-x)),
}  # fmt: skip


@pytest.mark.parametrize("has_shortcut", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_one_call_equals_the_separate_operations(case, activation, has_shortcut):
    batch, size, shape, stride, edges, groups, calls_onednn = CASES[case]
    window, rng = Window((stride, stride), edges, (1, 1), groups), np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, shape[2] * groups), np.float32)
    # Outputs between -10 and 10, so that ReLU6 cuts off both ends.
    kernel = rng.standard_normal(shape, np.float32) * 3 / np.prod(shape[:3]) ** 0.5
    bias = rng.standard_normal(shape[3], np.float32)
    out = np.asarray(XLA.convolve(jnp.asarray(images), jnp.asarray(kernel), window), np.float64) + bias
    shortcut = rng.standard_normal(out.shape, np.float32) if has_shortcut else None
    expected = ACTIVATIONS[activation](out + (shortcut if has_shortcut else 0))
    function = jax.jit(partial(convolve_fused, window=window, activation=activation))
    lowered = function.lower(images, kernel, bias, shortcut)
    np.testing.assert_allclose(function(images, kernel, bias, shortcut), expected, atol=2e-5)
    if onednn.is_available():
        assert ("__onednn$" in lowered.as_text()) == calls_onednn


def test_other_platforms_and_vmap_use_separate_operations():
    window, images = Window((1, 1), SAME, (1, 1), 1), jnp.ones((2, 3, 4, 4, 2))
    call = partial(convolve_fused, shortcut=None, window=window, activation="relu")
    kernel, bias = jnp.ones((3, 3, 2, 2)), jnp.zeros(2)
    found = jax.vmap(call, (0, None, None))(images, kernel, bias)
    np.testing.assert_array_equal(found[0], call(images[0], kernel, bias))
    program = jax.jit(call).trace(images[0], kernel, bias).lower(lowering_platforms=("cuda",)).as_text()
    assert "onednn" not in program
    assert "stablehlo.convolution" in program


def test_only_the_convolution_counts_as_multiply_adds():
    call = partial(convolve_fused, window=Window((1, 1), SAME, (1, 1), 1), activation="relu")
    images, out = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 4, 4, 3))
    assert count_multiply_adds(call, images, jnp.ones((3, 3, 2, 3)), jnp.zeros(3), out) == 4 * 4 * 3 * 9 * 2
