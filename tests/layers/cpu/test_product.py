"""oneDNN's matrix products equal JAX's: values, first and second derivatives, and batches."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers import Conv, Linear
from eqxcnn.layers.cpu import onednn
from eqxcnn.runtime.compile import jit_once

if not onednn.is_available():
    pytest.skip("oneDNN is not available", allow_module_level=True)

from eqxcnn.layers.cpu.product import matrix_product

KEY = jax.random.key(0)


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def numpy_init(key, shape, dtype=jnp.float32):
    return draw(*shape).astype(dtype)


def count_calls(lowered):
    return lowered.as_text().count("@__onednn$matmul")


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("transpose_left", [False, True])
@pytest.mark.parametrize("transpose_right", [False, True])
@pytest.mark.parametrize("inner", [30, 2000])  # only the larger product is given to oneDNN
def test_values_and_gradients_up_to_second_order(transpose_left, transpose_right, inner):
    left = draw(*((inner, 70) if transpose_left else (70, inner)))
    right = draw(*((80, inner) if transpose_right else (inner, 80)))

    def plain(left, right):
        return (left.T if transpose_left else left) @ (right.T if transpose_right else right)

    def total(form, left, right):
        return jnp.sin(form(left, right) / inner**0.5).sum()

    def results(form, values):
        both = jax.value_and_grad(partial(total, form), argnums=(0, 1))
        return jax.jvp(both, values, values)

    form = partial(matrix_product, transpose_left=transpose_left, transpose_right=transpose_right)
    assert_close(*jit_once(lambda *values: [results(form, values), results(plain, values)])(left, right))
    gradients = jax.jit(jax.grad(partial(total, form), argnums=(0, 1)))
    assert count_calls(gradients.lower(left, right)) == (3 if inner == 2000 else 0)


def test_vmap_over_either_matrix():
    @jit_once
    def run_both(left, right):
        results = []
        for axes in ((0, None), (1, None), (None, 0), (0, 0)):
            for transpose in (False, True):
                a, b = left if axes[0] is not None else left[0], right if axes[1] is not None else right[0]
                plain = lambda a, b, transpose=transpose: (a.T if transpose else a) @ b  # noqa: E731
                found = jax.vmap(partial(matrix_product, transpose_left=transpose), axes)(a, b)
                results.append((found, jax.vmap(plain, axes)(a, b)))
        return results

    for found, expected in run_both(draw(3, 3, 3), draw(3, 3, 3)):
        assert_close(found, expected)


def test_dense_layers_train_with_it_and_exported_programs_do_not_contain_it():
    layer, rows = Linear(700, 300, key=KEY), draw(64, 700)
    plain = eqx.nn.Linear(700, 300, key=KEY)

    def gradient(layer, rows):
        return eqx.filter_grad(lambda both: jnp.sin(jax.vmap(both[0])(both[1])).sum())((layer, rows))

    (found, found_rows), (expected, expected_rows) = eqx.filter_jit(
        lambda *values: [gradient(each, values[-1]) for each in values[:-1]]
    )(layer, plain, rows)
    assert_close((found.weight, found.bias, found_rows), (expected.weight, expected.bias, expected_rows))
    assert count_calls(eqx.filter_jit(gradient).lower(layer, rows).lowered) == 3
    batched = jax.vmap(layer)
    assert_close(batched(rows), jax.vmap(plain)(rows))
    exported = export.export(jax.jit(batched))(rows)
    assert "@__onednn$matmul" not in exported.mlir_module()
    assert_close(exported.call(rows), batched(rows))
    assert count_multiply_adds(batched, rows) == 64 * 700 * 300


def test_other_dense_layers_are_equinoxs():
    for make, x in (
        (partial(Linear, 5, 3, use_bias=False), draw(5)),
        (partial(Linear, 5, 3), draw(5).astype(jnp.bfloat16)),
    ):
        layer = make(key=KEY)
        plain = eqx.nn.Linear(layer.in_features, layer.out_features, layer.use_bias, key=KEY)
        found, expected = layer(x), plain(x)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), ((1, 3), ((1, 0), (0, 2)))])
def test_pointwise_convolutions_are_products(stride, padding, monkeypatch):
    conv, images = Conv(64, 96, 1, stride, padding, weight_init=numpy_init, key=KEY), draw(48, 16, 15, 64)

    def run(conv, images):
        def total(both):
            out = jax.vmap(both[0])(both[1])
            return jnp.sin(out).sum(), out

        return eqx.filter_grad(total, has_aux=True)((conv, images))

    found = eqx.filter_jit(run)(conv, images)
    assert count_calls(eqx.filter_jit(run).lower(conv, images).lowered) == 3
    assert count_multiply_adds(jax.vmap(conv), images) == found[1].size * 64
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    assert_close(found, jit_once(lambda conv, images: run(conv, images))(conv, images))
