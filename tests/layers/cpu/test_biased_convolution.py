"""The CPU's convolutions with a bias equal XLA's: values, and gradients of any subset of the operands."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.implementation import XLA, Window
from eqxcnn.runtime.compile import jit_once

if not onednn.is_available():
    pytest.skip("oneDNN is not available", allow_module_level=True)

from eqxcnn.layers.cpu.biased_convolution import convolve_biased

WINDOW = Window(stride=(1, 1), edges=((1, 1), (1, 1)), dilation=(1, 1), groups=1)


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def biased_by_xla(images, kernel, bias, window):
    return XLA.convolve(images, kernel, window) + bias


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("channels", [3, 8])  # `stem_gradient`, and a convolution
@pytest.mark.parametrize("is_traced", [each for each in product((False, True), repeat=3) if any(each)])
def test_values_and_gradients_up_to_second_order(channels, is_traced):
    values = draw(3, 6, 5, channels), draw(3, 3, channels, 6), draw(6)
    indices = [index for index, traced in enumerate(is_traced) if traced]

    def results(convolve, traced):
        def total(*traced):
            operands = list(values)
            for index, value in zip(indices, traced, strict=True):
                operands[index] = value
            return jnp.sin(convolve(*operands, WINDOW)).sum()

        both = jax.value_and_grad(total, argnums=tuple(range(len(indices))))
        return jax.jvp(both, traced, traced)

    run = jit_once(lambda traced: [results(convolve, traced) for convolve in (convolve_biased, biased_by_xla)])
    assert_close(*run([values[index] for index in indices]))


def test_vmap_over_any_subset_of_the_operands():
    images, kernel, bias = draw(2, 3, 6, 5, 4), draw(2, 3, 3, 4, 6), draw(2, 6)
    subsets = [axes for axes in product((None, 0), repeat=3) if any(axis is not None for axis in axes)]

    def run(convolve, axes, *operands):
        operands = [each if axis == 0 else each[0] for each, axis in zip(operands, axes, strict=True)]
        return jax.vmap(partial(convolve, window=WINDOW), axes)(*operands)

    both = jit_once(
        lambda *operands: [[run(f, axes, *operands) for axes in subsets] for f in (convolve_biased, biased_by_xla)]
    )
    assert_close(*both(images, kernel, bias))


def test_layers_with_a_bias_use_it():
    conv = Conv(3, 6, 3, weight_init=lambda key, shape: draw(*shape), key=jax.random.key(0))
    assert "eqxcnn_biased_convolution" in str(jax.make_jaxpr(jax.vmap(conv))(draw(4, 9, 9, 3)))
    assert count_multiply_adds(jax.vmap(conv), draw(4, 9, 9, 3)) == 4 * 9 * 9 * 6 * 3 * 3 * 3
