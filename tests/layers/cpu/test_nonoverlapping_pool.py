"""Windows side by side, against JAX's plain reductions: forward, backward, and the change of what goes backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers import AvgPool, MaxPool
from eqxcnn.layers.cpu.nonoverlapping_pool import tile_maxima, tile_sums


@pytest.mark.parametrize("tile", [(2, 2), (1, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize(("form", "reduction"), [(tile_sums, jnp.sum), (tile_maxima, jnp.max)])
def test_values_and_gradients_of_all_orders(form, reduction, tile):
    image = jnp.float32(np.random.RandomState(0).normal(size=(6, 6, 2)))

    def plain(image, tile):
        return reduction(image.reshape(6 // tile[0], tile[0], 6 // tile[1], tile[1], 2), (1, 3))

    def results(form):
        both = jax.value_and_grad(lambda image: jnp.sin(form(image, tile)).sum())
        return form(image, tile), jax.jit(lambda image: jax.jvp(both, (image,), (image**2,)))(image)

    for found, expected in zip(*(jax.tree.leaves(results(each)) for each in (form, plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", [AvgPool(2), MaxPool(2), MaxPool(3), AvgPool(2, padding=1)])
def test_backward_the_image_is_not_put_together_from_parts(pool):
    def total(images):
        return (jax.vmap(pool)(images) ** 2).sum()

    gradient = jax.jit(jax.grad(total)).lower(jax.ShapeDtypeStruct((4, 12, 12, 3), jnp.float32))
    assert "concatenate" not in gradient.as_text()
