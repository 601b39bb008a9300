"""Convolutions by oneDNN are those by XLA, however they are differentiated and batched."""

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

from eqxcnn.cost import multiply_adds
from eqxcnn.layers import Conv
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.onednn_conv import by_xla, convolve

KEY = jax.random.key(0)
here = pytest.mark.skipif(not onednn.is_available(), reason="oneDNN is not available")
EDGES = ((1, 1), (1, 1))


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def calls(program):
    """How often a compiled program calls oneDNN, and XLA's own convolution."""
    text = program.as_text()
    return text.count('custom_call_target="__onednn$convolution"'), text.count(" convolution(")


def total(form, how, images, weight):
    return jnp.sin(form(images, weight, **how)).sum()


def assert_the_same(images, weight, **how):
    """Values, gradients and how they change along the operands, by oneDNN and by XLA."""

    def results(form):
        both = jax.value_and_grad(partial(total, form, how), argnums=(0, 1))
        return jax.jit(lambda *values: jax.jvp(both, values, values))

    found, expected = results(convolve)(images, weight), results(by_xla)(images, weight)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@here
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "edges", "dilation", "groups", "by_onednn", "by_xla_alone"),
    [
        (16, (3, 3), (1, 1), EDGES, (1, 1), 1, 3, 0),
        (5, (5, 4), (1, 1), ((0, 2), (3, 1)), (1, 1), 1, 3, 0),
        (4, (3, 3), (1, 1), EDGES, (1, 1), 1, 2, 1),  # few channels: the kernel's gradient is XLA's
        (5, (3, 3), (1, 1), EDGES, (1, 2), 1, 2, 1),  # so it is of dilated kernels
        (3, (3, 3), (1, 1), EDGES, (1, 1), 1, 2, 0),  # a small filter: it is a product of matrices
        (5, (1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, 2, 0),
        (2, (3, 4), (1, 1), ((0, 2), (3, 1)), (1, 1), 1, 2, 0),
        (1, (2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1), 1, 1, 1),
        (5, (3, 2), (2, 1), EDGES, (1, 1), 1, 1, 2),  # both gradients of strided ones
        (7, (2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1), 1, 2, 1),  # more edge than kernel: the image's gradient is XLA's
        (12, (3, 3), (1, 1), EDGES, (1, 1), 2, 3, 0),
        (6, (3, 2), (2, 1), EDGES, (1, 1), 3, 3, 0),  # in groups strided ones, too
        (6, (3, 3), (2, 2), ((1, 1), (0, 0)), (1, 1), 2, 3, 0),  # pixels are left over
        (3, (3, 3), (1, 1), EDGES, (1, 1), 3, 3, 0),  # two filters for each channel
        (6, (1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1), 2, 3, 0),
        (6, (2, 2), (1, 1), ((2, 1), (0, 3)), (1, 1), 2, 3, 0),
        (6, (3, 3), (2, 1), EDGES, (1, 2), 2, 2, 1),
    ],
)
def test_values_and_gradients_of_all_orders_are_xlas(
    channels, kernel, stride, edges, dilation, groups, by_onednn, by_xla_alone
):
    images, weight = draw(3, 9, 8, channels), draw(*kernel, channels // groups, 6)
    how = {"stride": stride, "edges": edges, "dilation": dilation, "groups": groups}

    assert_the_same(images, weight, **how)
    gradients = jax.jit(jax.grad(partial(total, convolve, how), argnums=(0, 1)))
    assert calls(gradients.lower(images, weight).compile()) == (by_onednn, by_xla_alone)


@here
@pytest.mark.parametrize("groups", [1, 3])
def test_a_kernel_with_its_inputs_first(groups):
    how = {"stride": (1, 1), "edges": EDGES, "dilation": (1, 1), "groups": groups}
    assert_the_same(draw(3, 9, 8, 12), draw(12 // groups, 3, 2, 6), **how, order="IHWO")


@here
def test_a_batch_of_batches_and_a_batch_of_kernels():
    images, weight = draw(2, 3, 6, 5, 4), draw(2, 3, 3, 4, 6)
    how = {"stride": (1, 1), "edges": EDGES, "dilation": (1, 1), "groups": 1}
    for axes in ((0, None), (3, None), (None, 0), (0, 0)):
        given = jnp.moveaxis(images, 0, 3) if axes[0] == 3 else images if axes[0] == 0 else images[0]
        kernels = weight[0] if axes[1] is None else weight
        found, expected = (jax.vmap(partial(form, **how), in_axes=axes)(given, kernels) for form in (convolve, by_xla))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@here
def test_networks_train_by_it_and_leave_it_out_of_what_they_export():
    conv = Conv(8, 6, 3, key=KEY)
    images = draw(4, 9, 9, 8)
    batched = jax.vmap(conv)
    gradients = jax.jit(
        jax.grad(lambda weight, x: (jax.vmap(eqx.tree_at(lambda c: c.weight, conv, weight))(x) ** 2).sum())
    )
    assert calls(gradients.lower(conv.weight, images).compile()) == (2, 0)  # the images are given
    exported = export.export(jax.jit(batched))(images)
    assert "@__onednn$convolution" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(images), batched(images), atol=1e-5)
    assert multiply_adds(batched, images) == 4 * 9 * 9 * 6 * 3 * 3 * 8


@here
def test_the_same_bits_each_time():
    images, conv = draw(64, 14, 14, 32), Conv(32, 64, 3, key=KEY)
    gradient = jax.jit(jax.grad(lambda conv, x: (jax.vmap(conv)(x) ** 2).sum()))
    first, *others = (gradient(conv, images) for _ in range(5))
    for other in others:
        np.testing.assert_array_equal(first.weight, other.weight)


@here
def test_processors_without_wide_vectors_agree():
    code = """
import jax, jax.numpy as jnp, numpy as np
from eqxcnn.layers.cpu.onednn_conv import by_xla, convolve
draw = lambda *shape: jnp.float32(np.random.RandomState(0).normal(size=shape))
values = draw(3, 9, 8, 16), draw(3, 3, 16, 6)
how = {"stride": (1, 1), "edges": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
found = []
for form in (convolve, by_xla):
    found.append(jax.jit(jax.grad(lambda *given: jnp.sin(form(*given, **how)).sum(), argnums=(0, 1)))(*values))
for one, other in zip(*found):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
