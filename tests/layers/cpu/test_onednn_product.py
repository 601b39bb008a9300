"""Products by oneDNN are those by XLA, however they are differentiated and batched."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from eqxcnn.cost import multiply_adds
from eqxcnn.layers import Conv, Linear
from eqxcnn.layers.cpu import onednn
from eqxcnn.layers.cpu.onednn_product import product

KEY = jax.random.key(0)
here = pytest.mark.skipif(not onednn.is_available(), reason="oneDNN is not available")


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def calls(program):
    return program.as_text().count('custom_call_target="__onednn$matmul"')


def check_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(other).max()))


@here
@pytest.mark.parametrize("left_turned", [False, True])
@pytest.mark.parametrize("right_turned", [False, True])
@pytest.mark.parametrize("inner", [30, 2000])  # the smaller ones are not worth a call
def test_values_and_gradients_of_all_orders(left_turned, right_turned, inner):
    left = draw(*((inner, 70) if left_turned else (70, inner)))
    right = draw(*((80, inner) if right_turned else (inner, 80)))

    def plain(left, right):
        return (left.T if left_turned else left) @ (right.T if right_turned else right)

    def total(form, left, right):
        return jnp.sin(form(left, right) / inner**0.5).sum()

    def results(form):
        both = jax.value_and_grad(partial(total, form), argnums=(0, 1))
        return jax.jit(lambda *values: jax.jvp(both, values, values))

    form = partial(product, left_turned=left_turned, right_turned=right_turned)
    check_close(results(form)(left, right), results(plain)(left, right))
    gradients = jax.jit(jax.grad(partial(total, form), argnums=(0, 1)))
    assert calls(gradients.lower(left, right).compile()) == (3 if inner == 2000 else 0)


@here
def test_batches_on_either_side():
    for axes in ((0, None), (1, None), (None, 0), (0, 0)):
        for left_turned in (False, True):
            left, right = draw(3, 3, 3), draw(3, 3, 3)
            left, right = left if axes[0] is not None else left[0], right if axes[1] is not None else right[0]

            def plain(left, right, turned=left_turned):
                return (left.T if turned else left) @ right

            found = jax.vmap(partial(product, left_turned=left_turned), axes)(left, right)
            check_close(found, jax.vmap(plain, axes)(left, right))


@here
def test_dense_layers_train_by_it_and_leave_it_out_of_what_they_export():
    layer, rows = Linear(700, 300, key=KEY), draw(64, 700)
    plain = eqx.nn.Linear(700, 300, key=KEY)

    def gradient(layer, rows):
        return eqx.filter_grad(lambda both: jnp.sin(jax.vmap(both[0])(both[1])).sum())((layer, rows))

    (found, of_rows), (expected, of_plain_rows) = gradient(layer, rows), gradient(plain, rows)
    check_close((found.weight, found.bias, of_rows), (expected.weight, expected.bias, of_plain_rows))
    assert calls(eqx.filter_jit(gradient).lower(layer, rows).compile().compiled) == 3
    batched = jax.vmap(layer)
    check_close(batched(rows), jax.vmap(plain)(rows))
    exported = export.export(jax.jit(batched))(rows)
    assert "@__onednn$matmul" not in exported.mlir_module()
    check_close(exported.call(rows), batched(rows))
    assert multiply_adds(batched, rows) == 64 * 700 * 300


def test_dense_layers_of_other_kinds_are_equinoxs():
    for make, x in (
        (partial(Linear, 5, 3, use_bias=False), draw(5)),
        (partial(Linear, 5, 3), draw(5).astype(jnp.bfloat16)),
    ):
        layer = make(key=KEY)
        plain = eqx.nn.Linear(layer.in_features, layer.out_features, layer.use_bias, key=KEY)
        found, expected = layer(x), plain(x)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@here
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 0), ((1, 3), ((1, 0), (0, 2)))])
def test_kernels_of_one_pixel_are_products(stride, padding, monkeypatch):
    conv, images = Conv(64, 96, 1, stride, padding, key=KEY), draw(128, 16, 15, 64)

    def gradient(conv, images):
        return eqx.filter_grad(lambda both: jnp.sin(jax.vmap(both[0])(both[1])).sum())((conv, images))

    found, (kernel, of_images) = jax.vmap(conv)(images), gradient(conv, images)
    assert calls(eqx.filter_jit(gradient).lower(conv, images).compile().compiled) == 3
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    expected, (plain_kernel, plain_images) = jax.vmap(conv)(images), gradient(conv, images)
    check_close(
        (found, kernel.weight, kernel.bias, of_images), (expected, plain_kernel.weight, plain_kernel.bias, plain_images)
    )
    assert multiply_adds(jax.vmap(conv), images) == found.size * 64
