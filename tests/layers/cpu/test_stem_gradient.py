"""A first convolution's gradients, as one product, are those that XLA takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from eqxcnn.layers.cpu.stem_gradient import stem_gradient


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 2), (2, 1), (4, 3), (3, 6)])
@pytest.mark.parametrize("edges", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 3), (2, 1)), ((4, 0), (0, 5))])
@pytest.mark.parametrize("size", [(7, 8), (6, 7)])
def test_gradients_are_xlas(kernel, edges, size):
    random = np.random.RandomState(0)
    images, weight = jnp.float32(random.normal(size=(3, *size, 2))), jnp.float32(random.normal(size=(*kernel, 2, 5)))

    def convolve(weight, bias):
        return (
            lax.conv_general_dilated(images, weight, (1, 1), edges, dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        )

    value, back = jax.vjp(convolve, weight, jnp.zeros(5))
    out = jnp.float32(random.normal(size=value.shape))
    found = stem_gradient(out, images, kernel, edges)
    for one, other in zip(found, back(out), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))
