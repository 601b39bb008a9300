"""Depthwise convolutions as sums over taps equal XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.conv import _choose_implementation, _convolve_by_onednn, _convolve_by_taps, _convolve_by_xla
from eqxcnn.layers.cpu import onednn
from eqxcnn.runtime.compile import jit_once

CASES = [
    # kernel, stride, padding, dilation, height and width
    (3, 1, 1, 1, (7, 6)),
    (3, 2, 1, 1, (8, 7)),
    (5, 2, 2, 1, (9, 9)),
    ((1, 3), (2, 1), (0, 1), 1, (6, 5)),
    (3, 1, 2, 2, (8, 9)),
    (3, 2, "SAME", 1, (8, 8)),
    (2, 3, 0, 1, (9, 7)),
    # Padding larger than the kernel's span: whole rows of zeros.
    (3, 1, 4, 1, (5, 5)),
]


def numpy_init(key, shape, dtype=jnp.float32):
    """Random kernels for which nothing has to be compiled."""
    return jnp.asarray(np.random.RandomState(1).normal(size=shape), dtype)


def make_conv(kernel, stride, padding, dilation, channels=4, groups=4):
    return Conv(channels, channels, kernel, stride, padding, dilation, groups, False, numpy_init, key=jax.random.key(0))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "size"), CASES)
def test_outputs_and_gradients_are_xlas(kernel, stride, padding, dilation, size):
    conv = make_conv(kernel, stride, padding, dilation)
    images = jnp.float32(np.random.RandomState(0).normal(size=(3, *size, 4)))

    def results(convolve, weight, images):
        def total(weight, images):
            out = jax.vmap(lambda image: convolve(image, weight, conv))(images)
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        return jax.grad(total, (0, 1), has_aux=True)(weight, images)

    both = jit_once(lambda *values: [results(convolve, *values) for convolve in (_convolve_by_taps, _convolve_by_xla)])
    ours, xla = both(conv.weight, images)
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(xla), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_per_image():
    conv = make_conv(3, 1, 1, 1)
    images = jnp.float32(np.random.RandomState(0).normal(size=(3, 5, 5, 4)))

    @jit_once
    def gradients(images, weight):
        def gradient(image):
            return jax.grad(lambda weight: (_convolve_by_taps(image, weight, conv) ** 2).sum())(weight)

        return jax.vmap(gradient)(images), jnp.stack([gradient(image) for image in images])

    together, alone = gradients(images, conv.weight)
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_each_tap_costs_one_multiply_add_per_output():
    conv = make_conv(3, 2, 1, 1)
    image = jax.ShapeDtypeStruct((8, 8, 4), jnp.float32)
    for convolve in (_convolve_by_taps, _convolve_by_xla):
        assert count_multiply_adds(lambda image, run=convolve: run(image, conv.weight, conv), image) == 4 * 4 * 4 * 9


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="taps are for CPUs")
def test_taps_are_used_for_depthwise_convolutions_in_full_precision():
    assert _choose_implementation(make_conv(3, 1, 1, 1), jnp.dtype(jnp.float32)) is _convolve_by_taps
    assert _choose_implementation(make_conv(3, 1, 1, 1), jnp.dtype(jnp.bfloat16)) is _convolve_by_xla
    in_pairs = make_conv(3, 1, 1, 1, groups=2)
    expected = _convolve_by_onednn if onednn.is_available() else _convolve_by_xla
    assert _choose_implementation(in_pairs, jnp.dtype(jnp.float32)) is expected
