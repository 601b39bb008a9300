import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jaxtyping import TypeCheckError

from eqxcnn.errors import InputError
from eqxcnn.layers import Attention
from eqxcnn.runtime.compile import jit_once


def slow_attention(layer, tokens, bias=None):
    """Equation 1 of the paper in float64, head by head and query by query."""
    wide = lambda array: np.asarray(array, np.float64)  # noqa: E731
    tokens, d = wide(tokens), tokens.shape[1]
    width = d // layer.heads
    query, key, value = (
        tokens @ wide(layer.qkv.weight[part * d : (part + 1) * d]).T + wide(layer.qkv.bias[part * d : (part + 1) * d])
        for part in range(3)
    )
    out = np.zeros(tokens.shape)
    for head in range(layer.heads):
        own = slice(head * width, (head + 1) * width)
        for i in range(len(tokens)):
            scores = [query[i, own] @ each / np.sqrt(width) for each in key[:, own]]
            if bias is not None:
                scores += wide(bias[head, i])
            weights = np.exp(scores - np.max(scores))
            out[i, own] = weights / weights.sum() @ value[:, own]
    return out @ wide(layer.proj.weight).T + wide(layer.proj.bias)


def draw(dim=12, heads=3, n=5):
    """Returns a layer with random weights and biases, random tokens and a random attention bias."""
    layer = Attention(dim, heads, key=jax.random.key(0))
    rng = np.random.RandomState(0)
    layer = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape) / 2), layer)
    return layer, jnp.float32(rng.normal(size=(n, dim))), jnp.float32(rng.normal(size=(heads, n, n)))


@pytest.mark.parametrize(("dim", "heads", "n"), [(12, 3, 5), (8, 1, 4), (6, 6, 7), (4, 2, 1)])
def test_values_are_those_of_the_definition(dim, heads, n):
    layer, tokens, bias = draw(dim, heads, n)
    without, biased = jit_once(lambda layer, tokens, bias: (layer(tokens), layer(tokens, bias)))(layer, tokens, bias)
    np.testing.assert_allclose(without, slow_attention(layer, tokens), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(biased, slow_attention(layer, tokens, bias), rtol=1e-5, atol=1e-5)


def test_gradients():
    layer, tokens, bias = draw(8, 2, 3)

    @jax.jit
    def call(*values):
        layer, tokens, bias = jax.tree.map(jnp.asarray, values)
        return layer(tokens, bias)

    check_grads(call, (layer, tokens, bias), order=1, modes=["rev"], rtol=1e-2, atol=1e-2, eps=1e-2)


def test_tokens_with_a_bias_of_minus_infinity_are_ignored():
    layer, tokens, bias = draw()
    bias = bias.at[:, :, 2].set(-jnp.inf)
    others = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(layer(tokens, bias)[others], layer(tokens.at[2].set(9), bias)[others])
    np.testing.assert_allclose(
        layer(tokens, bias)[others], layer(tokens[others], bias[:, others][:, :, others]), rtol=1e-5, atol=1e-6
    )


def test_vmap_over_tokens_and_biases():
    layer, tokens, bias = draw()
    out = jax.vmap(layer)(jnp.stack([tokens, -tokens]), jnp.stack([bias, 0 * bias]))
    np.testing.assert_allclose(out, [layer(tokens, bias), layer(-tokens)], rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow():
    layer, tokens, _ = draw()
    np.testing.assert_allclose(layer(300 * tokens), slow_attention(layer, 300 * tokens), rtol=1e-3)


def test_softmax_of_bfloat16_scores_is_computed_in_float32():
    layer, tokens, bias = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), draw(n=200))
    with jax.numpy_dtype_promotion("strict"):
        out = layer(tokens, bias)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), slow_attention(layer, tokens, bias), rtol=0.02, atol=0.1)
    shown = str(jax.make_jaxpr(layer)(tokens, bias))
    assert "exp" in shown
    assert [line for line in shown.splitlines() if " = exp" in line and "f32" not in line] == []


def test_float64_stays_float64():
    with jax.enable_x64(True):
        layer, tokens, bias = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), draw())
        np.testing.assert_allclose(layer(tokens, bias), slow_attention(layer, tokens, bias), rtol=1e-12)


@pytest.mark.parametrize(("dim", "heads"), [(10, 3), (8, 0), (0, 2)])
def test_heads_must_divide_dim(dim, heads):
    with pytest.raises(InputError, match=rf"`dim` \(={dim}\) .* `heads` \(={heads}\)"):
        Attention(dim, heads, key=jax.random.key(0))


def test_a_bias_of_the_wrong_shape_is_rejected():
    layer, tokens, bias = draw()
    with pytest.raises(TypeCheckError):
        layer(tokens, bias[:, :4])
