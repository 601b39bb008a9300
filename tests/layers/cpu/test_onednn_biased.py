"""Convolutions with a bias by oneDNN are those by XLA, whatever of them changes."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.onednn_biased import convolve_biased
from eqxcnn.layers.cpu.onednn_conv import by_xla

here = pytest.mark.skipif(not onednn.is_available(), reason="oneDNN is not available")
HOW = {"stride": (1, 1), "edges": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def plain(images, kernel, bias, **how):
    return by_xla(images, kernel, **how) + bias


def check_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@here
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("which", [which for which in product((False, True), repeat=3) if any(which)])
def test_values_and_gradients_of_all_orders_whatever_changes(channels, which):
    values = draw(3, 9, 8, channels), draw(3, 3, channels, 6), draw(6)
    changing = [i for i, changes in enumerate(which) if changes]

    def results(form):
        def total(*changed):
            given = list(values)
            for i, value in zip(changing, changed, strict=True):
                given[i] = value
            return jnp.sin(form(*given, **HOW)).sum()

        both = jax.value_and_grad(total, argnums=tuple(range(len(changing))))
        at = [values[i] for i in changing]
        return jax.jit(lambda *at: jax.jvp(both, at, at))(*at)

    check_close(results(convolve_biased), results(plain))


@here
def test_batches_of_each():
    images, kernel, bias = draw(2, 3, 6, 5, 4), draw(2, 3, 3, 4, 6), draw(2, 6)
    for axes in product((None, 0), repeat=3):
        if any(axis is not None for axis in axes):
            given = [each if axis == 0 else each[0] for each, axis in zip((images, kernel, bias), axes, strict=True)]
            found, expected = (jax.vmap(partial(form, **HOW), axes)(*given) for form in (convolve_biased, plain))
            np.testing.assert_allclose(found, expected, atol=1e-5)


@here
def test_layers_with_a_bias_come_here():
    conv = Conv(3, 6, 3, key=jax.random.key(0))
    assert "onednn_biased_convolution" in str(jax.make_jaxpr(jax.vmap(conv))(draw(4, 9, 9, 3)))
    assert multiply_adds(jax.vmap(conv), draw(4, 9, 9, 3)) == 4 * 9 * 9 * 6 * 3 * 3 * 3
