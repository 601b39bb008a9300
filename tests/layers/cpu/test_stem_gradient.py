"""The gradients of a network's first convolution, computed by one matrix product, equal XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from eqxcnn.layers.cpu import onednn
from eqxcnn.runtime.compile import jit_once

if not onednn.is_available():
    pytest.skip("oneDNN is not available", allow_module_level=True)

from eqxcnn.layers.cpu.stem_gradient import stem_gradient

EDGES = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 3), (2, 1)), ((4, 0), (0, 5))]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 1), (4, 3), (3, 6)])
@pytest.mark.parametrize("size", [(7, 8), (6, 7)])
def test_gradients_are_xlas(kernel, size):
    random = np.random.RandomState(0)
    images, weight = jnp.float32(random.normal(size=(3, *size, 2))), jnp.float32(random.normal(size=(*kernel, 2, 5)))

    def convolve(weight, bias, edges):
        layouts = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(images, weight, (1, 1), edges, dimension_numbers=layouts) + bias

    @jit_once
    def both():
        results = []
        for edges in EDGES:
            value, back = jax.vjp(lambda *operands, edges=edges: convolve(*operands, edges), weight, jnp.zeros(5))
            out = jnp.float32(random.normal(size=value.shape))
            results.append((stem_gradient(out, images, kernel, edges), back(out)))
        return results

    for found, expected in both():
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))
