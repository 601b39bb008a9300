import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers import Conv
from eqxcnn.layers.conv import _by_onednn, _by_taps, _by_xla, _form
from eqxcnn.layers.cpu import onednn

CASES = [
    # kernel, stride, padding, dilation, height and width
    (3, 1, 1, 1, (7, 6)),
    (3, 2, 1, 1, (8, 7)),
    (5, 2, 2, 1, (9, 9)),
    ((1, 3), (2, 1), (0, 1), 1, (6, 5)),
    (3, 1, 2, 2, (8, 9)),
    (3, 2, "SAME", 1, (8, 8)),
    (2, 3, 0, 1, (9, 7)),
    # Padding beyond what the kernel spans: whole rows of zeros.
    (3, 1, 4, 1, (5, 5)),
]


def made(kernel, stride, padding, dilation, channels=4):
    return Conv(channels, channels, kernel, stride, padding, dilation, channels, use_bias=False, key=jax.random.key(0))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "size"), CASES)
def test_taps_and_xla_agree_on_scores_and_gradients(kernel, stride, padding, dilation, size):
    conv = made(kernel, stride, padding, dilation)
    images = jnp.float32(np.random.RandomState(0).normal(size=(3, *size, 4)))

    def results(form):
        def total(weight, images):
            out = jax.vmap(lambda image: form(image, weight, conv))(images)
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        return jax.jit(jax.grad(total, (0, 1), has_aux=True))(conv.weight, images)

    ours, xla = results(_by_taps), results(_by_xla)
    for mine, its in zip(jax.tree.leaves(ours), jax.tree.leaves(xla), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5)


def test_each_image_has_a_gradient_of_its_own():
    conv = made(3, 1, 1, 1)
    images = jnp.float32(np.random.RandomState(0).normal(size=(3, 5, 5, 4)))

    def of_weight(image):
        return jax.grad(lambda weight: (_by_taps(image, weight, conv) ** 2).sum())(conv.weight)

    together = jax.vmap(of_weight)(images)
    np.testing.assert_allclose(together, jnp.stack([of_weight(image) for image in images]), rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the choice on a CPU")
def test_taps_are_for_channels_on_their_own_in_full_precision():
    assert _form(made(3, 1, 1, 1), jnp.dtype(jnp.float32)) is _by_taps
    assert _form(made(3, 1, 1, 1), jnp.dtype(jnp.bfloat16)) is _by_xla
    in_pairs = Conv(4, 4, 3, groups=2, key=jax.random.key(0))
    assert _form(in_pairs, jnp.dtype(jnp.float32)) is (_by_onednn if onednn.is_available() else _by_xla)
