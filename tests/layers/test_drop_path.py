import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn.errors import InputError
from eqxcnn.layers import Dropout, DropPath
from eqxcnn.runtime.compile import jit_once


def test_an_example_is_kept_and_rescaled_or_dropped_as_a_whole():
    x = jnp.arange(1.0, 13.0).reshape(2, 3, 2)
    drop = jit_once(jax.vmap(lambda key: DropPath(0.25)(x, key=key)))
    out = drop(jax.random.split(jax.random.key(0), 4000))
    kept = out[:, 0, 0, 0] != 0
    np.testing.assert_allclose(out, kept[:, None, None, None] * x / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.02  # three standard deviations of 4000 draws


def test_identity_in_eval_mode_and_at_rate_zero():
    x = jnp.ones((2, 2, 3))
    assert eqx.nn.inference_mode(DropPath(0.5))(x, key=None) is x
    assert DropPath(0.0)(x, key=None) is x


def test_dtype_is_kept():
    with jax.numpy_dtype_promotion("strict"):
        assert DropPath(0.5)(jnp.ones(3, jnp.bfloat16), key=jax.random.key(0)).dtype == jnp.bfloat16


def test_the_gradient_is_rescaled_or_zero():
    keys = jax.random.split(jax.random.key(0), 20)
    gradients = jax.vmap(jax.grad(lambda x, key: DropPath(0.5)(x, key=key)), in_axes=(None, 0))(3.0, keys)
    assert set(gradients.tolist()) == {0.0, 2.0}


def test_a_missing_key_is_rejected():
    with pytest.raises(InputError, match=r"`key` \(=None\) must be a random key .* `rate` \(=0\.1\) is training"):
        DropPath(0.1)(jnp.ones(3), key=None)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_out_of_range_are_rejected(rate):
    with pytest.raises(InputError, match=r"`rate` \(=.*\) is a probability of dropping"):
        DropPath(rate)


def test_integers_are_rejected():
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        DropPath(0.1)(jnp.ones(3, int), key=jax.random.key(0))


def test_dropout_is_equinoxs():
    assert Dropout is eqx.nn.Dropout
