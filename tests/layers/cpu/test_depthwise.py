"""Depthwise convolutions by oneDNN and as sums over taps equal XLA's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.cpu.convolution import choose_for_cpu, convolve
from eqxcnn.layers.cpu.depthwise import DEPTHWISE
from eqxcnn.layers.cpu.implementation import XLA, Window
from eqxcnn.layers.cpu.onednn_conv import ONEDNN, ONEDNN_DEPTHWISE
from eqxcnn.layers.cpu.pointwise import POINTWISE
from eqxcnn.runtime.compile import jit_once

CASES = [
    # kernel, stride, edges, dilation, height and width
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (7, 6)),
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (8, 7)),
    ((5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1), (9, 9)),
    ((1, 3), (2, 1), ((0, 0), (1, 1)), (1, 1), (6, 5)),
    ((3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), (8, 9)),
    ((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), (8, 8)),
    ((2, 2), (3, 3), ((0, 0), (0, 0)), (1, 1), (9, 7)),
    # Padding larger than the kernel's span: whole rows of zeros.
    ((3, 3), (1, 1), ((4, 4), (4, 4)), (1, 1), (5, 5)),
]
WINDOW = Window((1, 1), ((1, 1), (1, 1)), (1, 1), groups=4)


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def results(form, images, kernel):
    """Returns values and gradients, and the directional derivatives of both along the operands."""
    both = jax.value_and_grad(lambda *values: jnp.sin(form(*values)).sum(), argnums=(0, 1))
    return form(images, kernel), jax.jvp(both, (images, kernel), (images, kernel))


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("onednn", ["0", "1"])
@pytest.mark.parametrize(("kernel", "stride", "edges", "dilation", "size"), CASES)
def test_values_and_gradients_up_to_second_order_are_xlas(kernel, stride, edges, dilation, size, onednn, monkeypatch):
    monkeypatch.setenv("EQXCNN_ONEDNN", onednn)
    window = Window(stride, edges, dilation, groups=4)

    def both(*values):
        return [results(partial(form, window=window), *values) for form in (convolve, XLA.convolve)]

    assert_close(*jit_once(both)(draw(3, *size, 4), draw(*kernel, 1, 4)))


def test_gradients_per_image_and_batches_of_kernels():
    images, kernels = draw(3, 1, 5, 5, 4), draw(3, 3, 3, 1, 4)

    @jit_once
    def both(images, kernels):
        results = []
        for form in (convolve, XLA.convolve):
            gradient = jax.grad(lambda kernel, image, form=form: (form(image, kernel, WINDOW) ** 2).sum())
            results.append([jax.vmap(gradient, (None, 0))(kernels[0], images), jax.vmap(gradient)(kernels, images)])
        return results

    assert_close(*both(images, kernels))


def test_each_tap_costs_one_multiply_add_per_output():
    conv = Conv(4, 4, 3, 2, 1, groups=4, use_bias=False, key=jax.random.key(0))
    assert count_multiply_adds(conv, jax.ShapeDtypeStruct((8, 8, 4), jnp.float32)) == 4 * 4 * 4 * 9


@pytest.mark.parametrize(
    ("shape", "groups", "dtype", "without_onednn", "with_onednn"),
    [
        ((3, 3, 1, 4), 4, jnp.float32, DEPTHWISE, ONEDNN_DEPTHWISE),
        ((3, 3, 1, 4), 4, jnp.bfloat16, XLA, XLA),
        ((40, 40, 1, 4), 4, jnp.float32, XLA, ONEDNN),
        ((3, 3, 2, 4), 2, jnp.float32, XLA, ONEDNN),
        ((1, 1, 4, 4), 1, jnp.float32, XLA, POINTWISE),
        ((1, 1, 4, 4), 1, jnp.bfloat16, XLA, XLA),
    ],
)
def test_the_choice_for_a_cpu(shape, groups, dtype, without_onednn, with_onednn):
    choose = partial(choose_for_cpu, shape, WINDOW._replace(groups=groups), jnp.dtype(dtype))
    assert choose(uses_onednn=False) is without_onednn
    assert choose(uses_onednn=True) is with_onednn
