import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from eqxcnn import cost
from eqxcnn.cost import (
    count_multiply_adds,
    count_multiply_adds_by_scope,
    register_multiply_adds,
    register_product_scope,
    shape_of,
)
from eqxcnn.layers import Conv


def test_matrix_product_and_grouped_convolution():
    assert count_multiply_adds(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 5))) == 2 * 3 * 5

    def grouped(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
        )

    # 3x4x4x8 outputs, each a sum of 3x3 products over the 2 channels of its group.
    assert count_multiply_adds(grouped, jnp.ones((3, 8, 8, 8)), jnp.ones((3, 3, 2, 8))) == 3 * 4 * 4 * 8 * 3 * 3 * 2


@pytest.mark.parametrize("use_bias", [False, True])
def test_each_gradient_of_a_convolution_counts_as_much_as_the_convolution(use_bias):
    conv = Conv(2, 6, 3, padding=1, use_bias=use_bias, key=jax.random.key(0))
    images = jnp.ones((4, 8, 8, 2))

    def total(conv_and_images):
        conv, images = conv_and_images
        return jax.vmap(conv)(images).sum()

    once = count_multiply_adds(total, (conv, images))
    assert once == 4 * 8 * 8 * 6 * 3 * 3 * 2
    assert count_multiply_adds(eqx.filter_grad(total), (conv, images)) == 3 * once


def test_jit_and_vmap_are_counted():
    matrix, vectors = jnp.ones((3, 5)), jax.ShapeDtypeStruct((7, 3), jnp.float32)
    assert count_multiply_adds(jax.jit(jax.vmap(lambda v: v @ matrix)), vectors) == 7 * 15


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(cost, "_COUNTERS", dict(cost._COUNTERS))
    monkeypatch.setattr(cost, "_PRODUCT_SCOPES", set(cost._PRODUCT_SCOPES))


def test_a_primitive_can_be_registered(clean_registry):
    assert count_multiply_adds(jnp.sin, jnp.ones((2, 3))) == 0
    register_multiply_adds("sin", lambda equation: 10 * shape_of(equation.outvars[0])[1])
    assert count_multiply_adds(jnp.sin, jnp.ones((2, 3))) == 30


def test_products_in_a_registered_scope_count_once_per_element(clean_registry):
    def function(x, weight):
        with jax.named_scope("layer"), jax.named_scope("my_products"):
            x = x * weight + x * weight
        return x * weight

    operands = jnp.ones((4, 5)), jnp.ones((4, 5))
    assert count_multiply_adds(function, *operands) == 0
    register_product_scope("my_products")
    counts = count_multiply_adds_by_scope(function, *operands)
    assert {scope: count for scope, count in counts.items() if count} == {"layer": 2 * 4 * 5}
