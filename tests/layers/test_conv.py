import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from eqxcnn.errors import InputError
from eqxcnn.layers import Conv
from eqxcnn.runtime.compile import async_jit, jit_once

KEY = jax.random.key(0)


def draw(*shape):
    return jnp.float32(np.random.RandomState(0).normal(size=shape))


def numpy_init(key, shape, dtype=jnp.float32):
    """Draws random kernels with NumPy, because JAX would compile a program for each shape."""
    return draw(*shape).astype(dtype)


def slow_conv(image, weight, stride, edges, dilation, groups):
    """The definition of a convolution, in float64."""
    image = np.pad(np.float64(image), (*edges, (0, 0)))
    kh, kw, inputs, outputs = weight.shape
    (sh, sw), (dh, dw) = stride, dilation
    h, w = (image.shape[0] - dh * (kh - 1) - 1) // sh + 1, (image.shape[1] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((h, w, outputs))
    for row, column, o in np.ndindex(*out.shape):
        first = o // (outputs // groups) * inputs
        patch = image[row * sh :, column * sw :, first : first + inputs][: dh * kh : dh, : dw * kw : dw][:kh, :kw]
        out[row, column, o] = np.sum(patch * weight[..., o])
    return out


def test_a_kernel_of_ones_sums_its_window():
    conv = Conv(1, 1, 2, padding="VALID", weight_init=jax.nn.initializers.ones, key=KEY)
    conv = eqx.tree_at(lambda c: c.bias, conv, jnp.array([0.5]))
    image = jnp.arange(1.0, 10.0).reshape(3, 3, 1)
    np.testing.assert_array_equal(conv(image)[..., 0], [[12.5, 16.5], [24.5, 28.5]])


@pytest.mark.parametrize(
    ("arguments", "edges"),
    [
        ({"kernel_size": 3, "padding": 1}, ((1, 1), (1, 1))),
        ({"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}, ((1, 1), (0, 0))),
        ({"kernel_size": 3, "padding": ((0, 2), (1, 3)), "dilation": (2, 1)}, ((0, 2), (1, 3))),
        ({"kernel_size": 3, "groups": 2}, ((1, 1), (1, 1))),  # SAME
        (
            {"kernel_size": 3, "groups": 4, "stride": 2, "dilation": 2},
            ((2, 2), (1, 2)),
        ),  # SAME: odd zero last
        ({"kernel_size": 1, "padding": "VALID"}, ((0, 0), (0, 0))),
        ({"kernel_size": (5, 6), "padding": "VALID"}, ((0, 0), (0, 0))),
        ({"kernel_size": (5, 5), "padding": ((0, 2), (3, 1))}, ((0, 2), (3, 1))),
    ],
)
def test_values_are_those_of_the_definition(arguments, edges):
    conv = Conv(4, 8, **arguments, use_bias=False, weight_init=numpy_init, key=KEY)
    image = draw(7, 6, 4)
    expected = slow_conv(image, conv.weight, conv.stride, edges, conv.dilation, conv.groups)
    one, batch = jit_once(lambda image: (conv(image), jax.vmap(conv)(jnp.stack([image, -image]))))(image)
    np.testing.assert_allclose(one, expected, atol=1e-4)
    np.testing.assert_allclose(batch, [expected, -expected], atol=1e-4)


def test_gradients():
    conv = Conv(2, 4, 3, stride=2, groups=2, weight_init=numpy_init, key=KEY)
    image = draw(5, 4, 2)

    @jax.jit
    def output(weight, bias, image):
        return eqx.tree_at(lambda c: (c.weight, c.bias), conv, (weight, bias))(image)

    check_grads(output, (conv.weight, conv.bias, image), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_vmapped_batch_is_one_plain_convolution(groups):
    conv = Conv(12, 8, 3, groups=groups, weight_init=numpy_init, key=KEY)
    images = jnp.ones((5, 8, 8, 12))

    def loss(weight, images):
        return jnp.sum(jax.vmap(eqx.tree_at(lambda c: c.weight, conv, weight))(images) ** 2)

    def lower(function):
        return jax.jit(function).trace(conv.weight, images).lower(lowering_platforms=("cuda",)).as_text().splitlines()

    (line,) = [line for line in lower(loss) if "stablehlo.convolution" in line]
    assert f"feature_group_count = {groups}" in line
    assert "(tensor<5x8x8x12xf32>, " in line
    lines = lower(jax.grad(loss, argnums=(0, 1)))
    assert sum("stablehlo.convolution" in line for line in lines) == 3  # forward, and two gradients
    assert not [line for line in lines if "stablehlo.transpose" in line and "tensor<5x" in line]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the barrier is for CPUs")
def test_the_input_of_a_convolution_is_not_recomputed():
    conv = Conv(8, 8, 3, weight_init=numpy_init, key=KEY)

    def loss(conv, images):
        return jnp.sum(jax.vmap(conv)(jax.nn.relu(1.1 * images)) ** 2)

    program = async_jit(eqx.filter_grad(loss)).lower(conv, jnp.ones((2, 8, 8, 8))).compile()
    # By default XLA removes the barrier and recomputes the ReLU for the kernel's gradient.
    assert "opt-barrier" in program.compiled.as_text()


def test_initial_weights_and_biases():
    conv = Conv(32, 64, 3, groups=2, key=KEY)
    assert conv.weight.shape == (3, 3, 16, 64)
    np.testing.assert_allclose(conv.weight.std(), np.sqrt(2 / (3 * 3 * 16)), rtol=0.02)
    np.testing.assert_array_equal(conv.bias, np.zeros(64))
    assert Conv(3, 4, 1, use_bias=False, weight_init=numpy_init, key=KEY).bias is None


def test_dtypes_follow_the_arguments():
    conv = Conv(2, 3, 3, weight_init=numpy_init, key=KEY)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), conv)
    image = jnp.ones((4, 4, 2))
    with jax.numpy_dtype_promotion("strict"):
        assert half(image.astype(jnp.bfloat16)).dtype == jnp.bfloat16
        assert conv(image).dtype == jnp.float32
        with pytest.raises(ValueError, match="promotion"):
            conv(image.astype(jnp.bfloat16))
    assert conv(image.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, r"`in_channels` \(=0\) must be at least 1"),
        ({"out_channels": -1}, r"`out_channels` \(=-1\) must be at least 1"),
        ({"groups": 0}, r"`groups` \(=0\) must be at least 1"),
        ({"in_channels": 3, "groups": 2}, r"`in_channels` \(=3\) must be divisible by `groups` \(=2\)"),
        ({"out_channels": 3, "groups": 2}, r"`out_channels` \(=3\) must be divisible by `groups` \(=2\)"),
        ({"kernel_size": 0}, r"`kernel_size` \(=0\)"),
        ({"kernel_size": (3, 0)}, r"`kernel_size` \(=\(3, 0\)\)"),
        ({"stride": 0}, r"`stride` \(=0\)"),
        ({"dilation": 0}, r"`dilation` \(=0\)"),
        ({"padding": "same"}, r"`padding` \(='same'\) must be \"SAME\", \"VALID\""),
        ({"padding": -1}, r"`padding` \(=-1\)"),
        ({"padding": ((0, 1), (-1, 0))}, r"`padding` \(=\(\(0, 1\), \(-1, 0\)\)\)"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        Conv(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **arguments}, key=KEY)


def test_a_kernel_larger_than_the_padded_image_is_rejected():
    conv = Conv(3, 4, 3, padding=((1, 0), (0, 0)), dilation=2, weight_init=numpy_init, key=KEY)
    assert conv(jnp.ones((4, 5, 3))).shape == (1, 1, 4)
    with pytest.raises(InputError, match=r"`image` \(height and width \(3, 5\)\) is too small for `kernel_size`"):
        conv(jnp.ones((3, 5, 3)))


def test_channels_first_is_rejected():
    conv = Conv(3, 4, 3, weight_init=numpy_init, key=KEY)
    message = r"`image` of shape \(3, 8, 8\) must have `in_channels` \(=3\) channels, channels last"
    with pytest.raises(InputError, match=message):
        conv(jnp.ones((3, 8, 8)))
    with pytest.raises(InputError, match=message):
        jax.jit(jax.vmap(conv))(jnp.ones((2, 3, 8, 8)))
    with pytest.raises(InputError, match=message):
        jax.grad(lambda image: conv(image).sum())(jnp.ones((3, 8, 8)))


@pytest.mark.slow
def test_shapes_are_checked_without_the_import_hook():
    code = """
from functools import partial
import jax, jax.numpy as jnp, equinox as eqx
from jaxtyping import TypeCheckError
from eqxcnn.errors import InputError
from eqxcnn.layers import AvgPool, BatchNorm, Conv, DropPath, MaxPool, global_avg_pool, global_max_pool
norm, state = eqx.nn.make_with_state(BatchNorm)(3)
calls = [
    lambda: Conv(3, 4, 3, key=jax.random.key(0))(jnp.ones((3, 8, 8))),
    lambda: norm(jnp.ones((3, 8, 8)), state),
    *[partial(pool, jnp.ones((2, 8, 8, 3))) for pool in (MaxPool(2), AvgPool(2), global_avg_pool, global_max_pool)],
    lambda: DropPath(0.1)(jnp.ones(3, int), key=jax.random.key(0)),
]
for call in calls:
    try:
        call()
    except (TypeCheckError, InputError):
        print("rejected")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["rejected"] * 7


def test_bfloat16_between_rectified_maps_and_a_mean_is_close_to_float32():
    conv = Conv(32, 32, 3, key=jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (16, 16, 32))

    @jax.jit
    def mean(conv, image):
        # float32 before and after the bfloat16, as in BatchNorm: jax 0.12.0 compiles this program wrongly.
        narrow = image.dtype
        first = jax.nn.relu((1.1 * image.astype(jnp.float32) - 0.1).astype(narrow))
        return jax.nn.relu((1.1 * conv(first).astype(jnp.float32) - 0.1).astype(narrow)).mean((0, 1))

    in_bfloat16 = mean(*jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (conv, image)))
    np.testing.assert_allclose(in_bfloat16.astype(jnp.float32), mean(conv, image), atol=0.01, rtol=0.02)


def test_a_large_depthwise_kernel_is_not_written_out_tap_by_tap():
    conv = Conv(2, 2, 40, groups=2, weight_init=numpy_init, key=KEY)
    traced = jax.jit(jax.vmap(conv)).trace(jax.ShapeDtypeStruct((1, 50, 50, 2), jnp.float32))
    assert len(traced.lower(lowering_platforms=("cpu",)).as_text().splitlines()) < 100
