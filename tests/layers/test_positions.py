import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn.layers import LayerNorm, each_position
from eqxcnn.runtime.compile import jit_once


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_the_layer_is_applied_to_each_vector(shape):
    dense = eqx.filter_eval_shape(eqx.nn.Linear, 3, 7, key=jax.random.key(0))
    dense = jax.tree.map(lambda leaf: draw(*leaf.shape), dense)
    x = draw(*shape)
    out = each_position(dense, x)
    assert out.shape == (*shape[:-1], 7)
    np.testing.assert_allclose(out, np.asarray(x) @ np.asarray(dense.weight).T + dense.bias, rtol=1e-5, atol=1e-6)


def test_layer_norm_normalizes_each_pixel_separately():
    maps = jnp.array([[[1.0, 3.0], [10.0, 30.0]]])
    out = each_position(LayerNorm(2, eps=0), maps)
    np.testing.assert_allclose(out, [[[-1, 1], [-1, 1]]], rtol=1e-6)


def test_vmap_and_gradient():
    x = draw(2, 3, 4, 5)
    gradient = jit_once(jax.grad(lambda x: jax.vmap(lambda maps: each_position(jnp.sin, maps))(x).sum()))(x)
    np.testing.assert_allclose(gradient, jnp.cos(x), rtol=1e-6)


def test_dtype_is_kept():
    with jax.numpy_dtype_promotion("strict"):
        assert each_position(jnp.sin, jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16


def test_integers_and_scalars_are_rejected():
    for x in (jnp.ones((2, 3), int), jnp.float32(1)):
        with pytest.raises(TypeCheckError, match="parameter 'x'"):
            each_position(jnp.sin, x)
