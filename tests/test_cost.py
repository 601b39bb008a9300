import jax
import jax.numpy as jnp
from jax import lax

from eqxcnn.cost import multiply_adds


def test_matrix_product_and_grouped_convolution():
    assert multiply_adds(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 5))) == 2 * 3 * 5

    def grouped(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
        )

    # 3x4x4x8 outputs, each a sum of 3x3 products over the 2 channels of its group.
    assert multiply_adds(grouped, jnp.ones((3, 8, 8, 8)), jnp.ones((3, 3, 2, 8))) == 3 * 4 * 4 * 8 * 3 * 3 * 2


def test_what_is_inside_jit_and_vmap_counts():
    matrix = jnp.ones((3, 5))
    assert multiply_adds(jax.jit(jax.vmap(lambda v: v @ matrix)), jax.ShapeDtypeStruct((7, 3), jnp.float32)) == 7 * 15
