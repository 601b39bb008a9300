"""Pooling of windows that do not overlap equals plain JAX: values, gradients, and gradients of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers import AvgPool, MaxPool
from eqxcnn.layers.cpu.nonoverlapping_pool import max_windows, sum_windows
from eqxcnn.runtime.compile import jit_once


def test_values_by_hand():
    image = jnp.array([[1, 2, 9, 8], [3, 4, 5, 7]], jnp.float32)[..., None]
    np.testing.assert_array_equal(sum_windows(image, (2, 2))[..., 0], [[10, 29]])
    np.testing.assert_array_equal(max_windows(image, (1, 2))[..., 0], [[2, 9], [4, 7]])
    gradient = jax.grad(lambda image: (max_windows(image, (2, 2))[..., 0] * jnp.array([[2.0, 3.0]])).sum())(image)
    np.testing.assert_array_equal(gradient[..., 0], [[0, 0, 3, 0], [0, 2, 0, 0]])


@pytest.mark.parametrize("window", [(2, 2), (1, 3), (3, 2)])
@pytest.mark.parametrize(("pool", "reduction"), [(sum_windows, jnp.sum), (max_windows, jnp.max)])
def test_values_and_gradients_up_to_second_order(pool, reduction, window):
    image = jnp.float32(np.random.RandomState(0).normal(size=(6, 6, 2)))

    def plain(image, window):
        return reduction(image.reshape(6 // window[0], window[0], 6 // window[1], window[1], 2), (1, 3))

    def results(pool):
        both = jax.value_and_grad(lambda image: jnp.sin(pool(image, window)).sum())
        return pool(image, window), jax.jvp(both, (image,), (image**2,))

    ours, theirs = jit_once(lambda: (results(pool), results(plain)))()
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", [AvgPool(2), MaxPool(2), MaxPool(3), AvgPool(2, padding=1)])
def test_the_gradient_is_not_concatenated_from_slices(pool):
    def total(images):
        return (jax.vmap(pool)(images) ** 2).sum()

    gradient = jax.jit(jax.grad(total)).lower(jax.ShapeDtypeStruct((4, 12, 12, 3), jnp.float32))
    assert "concatenate" not in gradient.as_text()
