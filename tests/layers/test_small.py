import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.layers import (
    AdaptiveAvgPool,
    ConvNorm,
    Linear,
    SqueezeExcite,
    drop_path_rates,
    flatten_for,
    keys_for,
    round_channels,
)
from eqxcnn.runtime.compile import jit_once


def slow_adaptive_pool(image, output_size):
    """Torch's definition: window `i` of `n` holds every pixel that the `i`-th part of the axis overlaps."""
    size, channels = image.shape[:2], image.shape[2]
    out = np.zeros((*output_size, channels))
    for place in itertools.product(*(range(count) for count in output_size)):
        pixels = [
            # Pixel p covers [p, p + 1), part i covers [i size/n, (i + 1) size/n).
            [p for p in range(size[a]) if p * output_size[a] < (place[a] + 1) * size[a]
             and (p + 1) * output_size[a] > place[a] * size[a]]
            for a in (0, 1)
        ]  # fmt: skip
        out[place] = np.mean([image[p] for p in itertools.product(*pixels)], axis=0)
    return out


@pytest.mark.parametrize(
    ("size", "output_size"),
    [
        ((5, 9), (7, 7)),  # fewer rows than outputs, overlapping windows
        ((9, 13), (6, 6)),
        ((8, 4), (4, 2)),
        ((7, 7), (7, 7)),
        ((1, 3), (2, 5)),
        ((6, 11), (1, 3)),
    ],
)
def test_adaptive_pool_values_are_those_of_the_definition(size, output_size):
    image = np.random.RandomState(0).normal(size=(*size, 3)).astype(np.float32)
    direction = np.random.RandomState(1).normal(size=(*output_size, 3)).astype(np.float32)

    @jit_once
    def run(image):
        out, backward = jax.vjp(AdaptiveAvgPool(output_size), image)
        return out, *backward(direction)

    out, gradient = run(image)
    expected = slow_adaptive_pool(image, output_size)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    # The pool is linear: <gradient, image> = <direction, pool(image)>.
    np.testing.assert_allclose(np.sum(gradient * image), np.sum(expected * direction), rtol=1e-4, atol=1e-5)


def test_adaptive_pool_by_hand():
    # Five pixels to three: windows [0, 2), [1, 4), [3, 5).
    row = jnp.array([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(1, 5, 1)
    np.testing.assert_allclose(AdaptiveAvgPool((1, 3))(row).ravel(), [1.5, 14 / 3, 12.0], rtol=1e-6)
    np.testing.assert_allclose(AdaptiveAvgPool(2)(row)[..., 0], [[7 / 3, 28 / 3]] * 2, rtol=1e-6)


def test_adaptive_pool_rejects_an_empty_output():
    with pytest.raises(InputError, match=r"`output_size` \(=0\) must be an integer of at least 1"):
        AdaptiveAvgPool(0)


@pytest.mark.parametrize(
    ("channels", "divisor", "expected"),
    [
        (32, 8, 32),
        (16 * 0.75, 8, 16),  # halfway rounds up
        (11.9, 8, 16),  # 8 would be below nine tenths
        (8.8, 8, 8),
        (19, 8, 24),  # 16 would be too
        (3, 8, 8),  # never 0
        (33.6, 8, 32),
        (1280 * 1.4, 8, 1792),
        (130, 64, 128),
        (15, 10, 20),
        (10, 9, 9),  # exactly nine tenths
    ],
)
def test_round_channels(channels, divisor, expected):
    assert round_channels(channels, divisor) == expected


def test_drop_path_rates_rise_linearly_from_zero():
    assert drop_path_rates(0.2, 5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_rates(0, 3) == [0, 0, 0]
    assert drop_path_rates(0.3, 1) == [0]


def test_keys_for_splits_only_used_keys():
    key = jax.random.key(0)
    keys = jnp.stack([jax.random.key_data(each) for each in keys_for(key, 3)])
    np.testing.assert_array_equal(keys, jax.random.key_data(jax.random.split(key, 3)))
    assert keys_for(key, 3, used=False) == [None] * 3
    assert keys_for(None, 2) == [None] * 2


def numpy_init(key, shape, dtype=jnp.float32):
    """Draws random values with NumPy, because JAX would compile a program for each shape."""
    return jnp.asarray(np.random.RandomState(0).normal(size=shape), dtype)


def run_batch(layer, state, images):
    return jax.vmap(lambda image: layer(image, state), out_axes=(0, None), axis_name="batch")(images)


def test_conv_norm_is_convolution_norm_activation():
    layer, state = eqx.nn.make_with_state(ConvNorm)(2, 3, 3, 2, weight_init=numpy_init, key=jax.random.key(0))
    layer = eqx.tree_at(lambda layer: layer.norm.bias, layer, jnp.array([0.0, 0.5, -3.0]))
    images = numpy_init(None, (4, 7, 6, 2))
    out, state = jit_once(run_batch)(layer, state, images)
    assert out.shape == (4, 4, 3, 3)
    padded = np.pad(np.asarray(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(layer.conv.weight)
    maps = np.array(
        [
            [[np.tensordot(image[i : i + 3, j : j + 3], kernel, 3) for j in range(0, 6, 2)] for i in range(0, 7, 2)]
            for image in padded
        ]
    )
    scaled = (maps - maps.mean((0, 1, 2))) / np.sqrt(maps.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(out, np.maximum(scaled + np.array([0.0, 0.5, -3.0]), 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.get(layer.norm.running_mean), 0.1 * maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "options", "shape"),
    [
        (1, 1, {}, (8, 9)),
        (3, 2, {}, (4, 5)),
        (5, 1, {}, (8, 9)),
        ((1, 7), 1, {}, (8, 9)),
        (3, 1, {"dilation": 2}, (8, 9)),
        (3, 1, {"dilation": (2, 2)}, (8, 9)),
        ((3, 5), (1, 2), {"dilation": (1, 3)}, (8, 5)),
        (3, 1, {"padding": 0}, (6, 7)),
        (4, 4, {"padding": "VALID"}, (2, 2)),
    ],
)
def test_conv_norm_pads_symmetrically(kernel, stride, options, shape):
    make = eqx.nn.make_with_state(ConvNorm)
    layer, state = make(1, 2, kernel, stride, weight_init=numpy_init, key=jax.random.key(0), **options)
    out, _ = eqx.filter_eval_shape(run_batch, layer, state, jnp.zeros((2, 8, 9, 1)))
    assert out.shape == (2, *shape, 2)
    edges = layer.conv.padding
    assert isinstance(edges, str) or all(before == after for before, after in edges)


def test_conv_norm_passes_its_arguments_on():
    layer, state = eqx.nn.make_with_state(ConvNorm)(
        1, 2, 1, activation=None, eps=1e-3, momentum=0.01, weight_init=numpy_init, key=jax.random.key(0)
    )
    assert (layer.norm.eps, layer.norm.momentum, layer.conv.bias) == (1e-3, 0.01, None)
    out, _ = jit_once(run_batch)(layer, state, numpy_init(None, (3, 4, 4, 1)))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)  # a ReLU would make it positive


def test_squeeze_excite_by_hand():
    layer = eqx.filter_eval_shape(SqueezeExcite, 2, 1, gate=lambda x: x / 10, key=jax.random.key(0))
    where = lambda layer: (layer.fc1.weight, layer.fc1.bias, layer.fc2.weight, layer.fc2.bias)  # noqa: E731
    values = ([[[[1.0], [2.0]]]], [-1.0], [[[[3.0, -1.0]]]], [1.0, 0.0])
    layer = eqx.tree_at(where, layer, tuple(map(jnp.array, values)))
    image = jnp.array([[[1.0, 0.0], [3.0, 2.0]]])  # means 2 and 1; hidden value 2 + 2 - 1 = 3
    np.testing.assert_allclose(layer(image), image * jnp.array([1.0, -0.3]), rtol=1e-6)
    # Means -2 and 1: the hidden ReLU gives 0, so only the biases of `fc2` remain.
    np.testing.assert_allclose(layer(image - jnp.array([4.0, 0.0])), [[[-0.3, 0.0], [-0.1, 0.0]]], atol=1e-6)


def test_the_default_gate_of_squeeze_excite_is_the_logistic_function():
    layer = eqx.filter_eval_shape(SqueezeExcite, 4, 2, key=jax.random.key(0))
    layer = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), layer)
    layer = eqx.tree_at(lambda layer: layer.fc2.bias, layer, jnp.log(jnp.array([1.0, 3.0, 4.0, 1 / 9])))
    np.testing.assert_allclose(layer(jnp.ones((2, 3, 4)))[1, 2], [0.5, 0.75, 0.8, 0.1], rtol=1e-6)


def test_flatten_for_checks_the_number_of_values():
    dense = Linear(12, 1, key=jax.random.key(0))
    maps = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(flatten_for(dense, maps), np.arange(12))
    for shape in ((2, 2, 2), (2, 4, 2)):
        with pytest.raises(InputError, match=r"`image` does not have the size .* the dense layer takes 12; resize"):
            flatten_for(dense, jnp.zeros(shape))


@pytest.mark.parametrize(("channels", "platform", "has_barrier"), [(3, "cpu", 0), (5, "cpu", 1), (5, "cuda", 0)])
def test_flatten_for_computes_feature_maps_before_it_flattens_them(channels, platform, has_barrier):
    dense = Linear(4 * channels, 1, key=jax.random.key(0))
    traced = jax.jit(lambda maps: flatten_for(dense, maps)).trace(jnp.zeros((2, 2, channels)))
    assert traced.lower(lowering_platforms=(platform,)).as_text().count("optimization_barrier") == has_barrier
