"""The CPU's convolutions equal XLA's: values, first and second derivatives, and batches."""

import os
import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.implementation import XLA, Window
from eqxcnn.runtime.compile import jit_once

if not onednn.is_available():
    pytest.skip("oneDNN is not available", allow_module_level=True)

from eqxcnn.layers.cpu.convolution import convolve

EDGES = ((1, 1), (1, 1))
WINDOW = Window(stride=(1, 1), edges=EDGES, dilation=(1, 1), groups=1)


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def numpy_init(key, shape, dtype=jnp.float32):
    return draw(*shape).astype(dtype)


def count_calls(lowered):
    """Returns the number of oneDNN's convolutions and the number of XLA's convolutions in a lowered program."""
    text = lowered.as_text()
    return text.count("@__onednn$convolution"), text.count("stablehlo.convolution")


def total(form, window, images, weight):
    return jnp.sin(form(images, weight, window)).sum()


def assert_same_as_xla(images, weight, window):
    """Compares values and gradients, and the directional derivatives of both along the operands."""

    def results(form, values):
        both = jax.value_and_grad(partial(total, form, window), argnums=(0, 1))
        return jax.jvp(both, values, values)

    run = jit_once(lambda *values: [results(form, values) for form in (convolve, XLA.convolve)])
    found, expected = run(images, weight)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "edges", "dilation", "groups", "by_onednn", "by_xla"),
    [
        (16, (3, 3), (1, 1), EDGES, (1, 1), 1, 3, 0),
        (5, (5, 4), (1, 1), ((0, 2), (3, 1)), (1, 1), 1, 3, 0),
        (4, (3, 3), (1, 1), EDGES, (1, 1), 1, 2, 1),  # few channels: the kernel's gradient is XLA's
        (5, (3, 3), (1, 1), EDGES, (1, 2), 1, 2, 1),  # dilated: the kernel's gradient is XLA's
        (3, (3, 3), (1, 1), EDGES, (1, 1), 1, 2, 0),  # a stem: the kernel's gradient is a matrix product
        (5, (1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, 2, 0),
        (2, (3, 4), (1, 1), ((0, 2), (3, 1)), (1, 1), 1, 2, 0),
        (1, (2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1), 1, 1, 1),
        (5, (3, 2), (2, 1), EDGES, (1, 1), 1, 1, 2),  # strided: both gradients are XLA's
        (
            7,
            (2, 2),
            (1, 1),
            ((2, 1), (0, 3)),
            (1, 1),
            1,
            2,
            1,
        ),  # wide edges: the images' gradient is XLA's
        (12, (3, 3), (1, 1), EDGES, (1, 1), 2, 3, 0),
        (6, (3, 2), (2, 1), EDGES, (1, 1), 3, 3, 0),  # strided groups
        (6, (3, 3), (2, 2), ((1, 1), (0, 0)), (1, 1), 2, 3, 0),  # the stride leaves pixels over
        (3, (3, 3), (1, 1), EDGES, (1, 1), 3, 3, 0),  # two kernels per channel
        (6, (1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1), 2, 3, 0),
        (6, (2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1), 2, 3, 0),
        (6, (3, 3), (2, 1), EDGES, (1, 2), 2, 2, 1),
    ],
)
def test_values_and_gradients_up_to_second_order(channels, kernel, stride, edges, dilation, groups, by_onednn, by_xla):
    images, weight = draw(3, 9, 8, channels), draw(*kernel, channels // groups, 6)
    window = Window(stride, edges, dilation, groups)
    assert_same_as_xla(images, weight, window)
    gradients = jax.jit(jax.grad(partial(total, convolve, window), argnums=(0, 1)))
    assert count_calls(gradients.lower(images, weight)) == (by_onednn, by_xla)


def test_vmap_over_images_and_kernels():
    images, weight = draw(2, 3, 6, 5, 4), draw(2, 3, 3, 4, 6)
    for axes in ((0, None), (3, None), (None, 0), (0, 0)):
        given = jnp.moveaxis(images, 0, 3) if axes[0] == 3 else images if axes[0] == 0 else images[0]
        kernels = weight[0] if axes[1] is None else weight
        found, expected = (
            jax.vmap(partial(form, window=WINDOW), in_axes=axes)(given, kernels) for form in (convolve, XLA.convolve)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_layers_train_with_it_and_exported_programs_do_not_contain_it():
    conv = Conv(8, 6, 3, weight_init=numpy_init, key=jax.random.key(0))
    images = draw(4, 9, 9, 8)
    batched = jax.vmap(conv)
    gradients = jax.jit(
        jax.grad(lambda weight, x: (jax.vmap(eqx.tree_at(lambda c: c.weight, conv, weight))(x) ** 2).sum())
    )
    assert count_calls(gradients.lower(conv.weight, images)) == (2, 0)  # no gradient of the images
    exported = export.export(jax.jit(batched), platforms=("cpu", "cuda"))(images)
    assert "@__onednn$convolution" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(images), batched(images), atol=1e-5)
    assert count_multiply_adds(batched, images) == 4 * 9 * 9 * 6 * 3 * 3 * 8


def test_it_works_outside_jit_and_with_jit_disabled():
    images, weight = draw(1, 4, 4, 5), draw(2, 2, 5, 3)
    expected = XLA.convolve(images, weight, WINDOW)
    np.testing.assert_allclose(convolve(images, weight, WINDOW), expected, atol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(convolve(images, weight, WINDOW), expected, atol=1e-5)


def test_repeated_calls_give_the_same_bits():
    images = draw(64, 14, 14, 32)
    conv = Conv(32, 64, 3, weight_init=numpy_init, key=jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda conv, x: (jax.vmap(conv)(x) ** 2).sum()))
    first, *others = (gradient(conv, images) for _ in range(5))
    for other in others:
        np.testing.assert_array_equal(first.weight, other.weight)


@pytest.mark.slow
def test_processors_without_avx512_agree():
    code = """
import jax, jax.numpy as jnp, numpy as np
from eqxcnn.layers.cpu.convolution import convolve
from eqxcnn.layers.cpu.implementation import XLA, Window
draw = lambda *shape: jnp.float32(np.random.RandomState(0).normal(size=shape))
values = draw(3, 9, 8, 16), draw(3, 3, 16, 6)
window = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
found = []
for form in (convolve, XLA.convolve):
    found.append(jax.jit(jax.grad(lambda *given: jnp.sin(form(*given, window)).sum(), argnums=(0, 1)))(*values))
for one, other in zip(*found):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
