"""`plain_layers`: layers that use plain JAX operations only, so that programs can be converted for other runtimes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers import AvgPool, Conv, Linear, MaxPool
from eqxcnn.layers.cpu.availability import plain_layers
from eqxcnn.layers.cpu.barrier import keep_on_cpu

IMAGES = np.random.default_rng(0).normal(size=(2, 13, 12, 5)).astype(np.float32)


def operations(function):
    return [str(equation.primitive) for equation in jax.make_jaxpr(jax.vmap(function))(IMAGES).eqns]


@pytest.mark.parametrize(
    ("pool", "operation"),
    [
        (MaxPool(2), "reduce_window_max"),
        (MaxPool(3, 2, 1), "reduce_window_max"),
        (MaxPool(3, 2, ceil_mode=True), "reduce_window_max"),
        (AvgPool(2), "reduce_window_sum"),
        (AvgPool(3, 2, 1, count_include_pad=False), "reduce_window_sum"),
    ],
)
def test_a_pool_is_one_operation_with_the_same_result(pool, operation):
    wanted = jax.vmap(pool)(IMAGES)
    with plain_layers():
        np.testing.assert_allclose(jax.vmap(pool)(IMAGES), wanted, atol=1e-6)
        assert operation in operations(pool)
    assert operation not in operations(pool)


def test_there_are_no_primitives_of_this_package_and_no_barriers():
    convolve, dense = Conv(5, 4, 3, key=jax.random.key(0)), Linear(4, 3, key=jax.random.key(1))

    def classify(image):
        return dense(keep_on_cpu(convolve(image)).mean((0, 1)))

    ours = {each for each in operations(classify) if each.startswith("eqxcnn")}
    assert len(ours) >= 2
    wanted = jax.vmap(classify)(IMAGES)
    with plain_layers():
        found = operations(classify)
        assert {each for each in found if "eqxcnn" in each or each in ("cond", "optimization_barrier")} == set()
        assert {"conv_general_dilated", "dot_general"} <= set(found)
        np.testing.assert_allclose(jax.vmap(classify)(jnp.asarray(IMAGES)), wanted, atol=1e-5)
