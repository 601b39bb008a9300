import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from eqxcnn import manual
from eqxcnn.errors import InputError
from eqxcnn.layers import AvgPool, MaxPool

pytestmark = pytest.mark.usefixtures("fast_compilation")

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def draw(seed, *shape):
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_close(got, wanted, dtype):
    """Compares each pair of arrays, up to a tolerance relative to the largest absolute value of the wanted array."""
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype == dtype
        one, other = np.asarray(one), np.asarray(other)
        assert np.abs(one - other).max() <= TOLERANCE[dtype] * np.abs(other).max()


def assert_same_as_autodiff(forward, backward, reference, *arguments, dtype="float64"):
    """Compares the output and the gradients with those of `reference` under autodiff, for a random output gradient."""

    def run(dy, *arguments):
        y, cache = forward(*arguments)
        wanted, pull = jax.vjp(reference, *arguments)
        gradients = pull(dy)
        return (y, backward(cache, dy)), (wanted, gradients if len(gradients) > 1 else gradients[0])

    dy = draw(99, *jax.eval_shape(reference, *arguments).shape)
    with jax.enable_x64(True):
        got, wanted = jax.jit(run)(*(array.astype(dtype) for array in (dy, *arguments)))
    assert_close(got, wanted, dtype)


def random_cases(count, seed):
    """Draws (height, width), kernel, stride and padding for which at least one window fits."""
    rng, cases = random.Random(seed), []
    while len(cases) < count:
        size, kernel, stride = ((rng.randint(1, top), rng.randint(1, top)) for top in (9, 4, 4))
        edges = tuple((rng.randint(0, k - 1), rng.randint(0, k - 1)) for k in kernel)
        padding = rng.choice(["SAME", "VALID", edges])
        if padding == "SAME" or all(n >= k for n, k in zip(size, kernel, strict=True)):
            cases.append((size, kernel, stride, padding))
    return cases


CASES = [
    ((6, 5), 3, 1, "VALID"),
    ((6, 5), 3, 1, "SAME"),
    ((8, 7), 3, 2, 1),  # the stride leaves a remainder: the last row is in no window
    ((9, 7), 2, 2, "VALID"),  # the same without overlap
    ((5, 7), 2, 2, "SAME"),  # the last window is half padding
    ((7, 9), (2, 3), (3, 1), (1, 2)),
    ((9, 9), 2, 3, "VALID"),  # gaps between windows
    ((7, 7), 3, 3, ((1, 1), (2, 0))),
    *random_cases(4, seed=0),
]


def edges_of(padding):
    """Converts padding to the form that `lax` takes."""
    if isinstance(padding, str):
        return padding
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return [edge if isinstance(edge, tuple) else (edge, edge) for edge in (rows, columns)]


def both(value):
    return (value, value) if isinstance(value, int) else value


#: One case shows that float32 stays float32; the others run in float64, where the tolerance is tight.
FLOAT32_CASE = (*CASES[2], "float32")
every_case = pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dtype"), [FLOAT32_CASE, *((*case, "float64") for case in CASES)]
)


def check_conv(size, kernel, stride, padding, dtype):
    channels = (1, 5) if padding == "VALID" else (3, 2)
    weight, bias = draw(1, *both(kernel), *channels), draw(2, channels[1])

    def reference(x, weight, bias):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, weight, both(stride), edges_of(padding), dimension_numbers=numbers) + bias

    forward = partial(manual.conv_forward, stride=stride, padding=padding)
    arguments = draw(0, 2, *size, channels[0]), weight, bias
    assert_same_as_autodiff(forward, manual.conv_backward, reference, *arguments, dtype=dtype)


@every_case
def test_conv_matches_autodiff(size, kernel, stride, padding, dtype):
    check_conv(size, kernel, stride, padding, dtype)


def test_conv_with_padding_larger_than_the_kernel_matches_autodiff():
    check_conv((2, 2), 2, 3, ((5, 0), (0, 4)), "float64")


def gather_max_pool(x, grid):
    """Computes the maximum of each window by gathering its pixels; `jnp.max` shares the gradient among ties."""
    x = jnp.pad(x, ((0, 0), *grid.edges, (0, 0)), constant_values=-jnp.inf)
    rows, columns = (
        np.arange(n)[:, None] * s + np.arange(k) for n, s, k in zip(grid.count, grid.stride, grid.kernel, strict=True)
    )
    return x[:, rows][:, :, :, columns].max((2, 4))


@every_case
def test_max_pool_matches_autodiff(size, kernel, stride, padding, dtype):
    # The first example has no ties, the second has many.
    x = draw(0, 2, *size, 3)
    x[1] = np.sign(x[1])
    grid = manual.windows(size, kernel, stride, padding)
    forward = partial(manual.max_pool_forward, kernel_size=kernel, stride=stride, padding=padding)
    reference = partial(gather_max_pool, grid=grid)
    assert_same_as_autodiff(forward, manual.max_pool_backward, reference, x, dtype=dtype)


def test_max_pool_splits_the_gradient_among_ties():
    x = jnp.array([[2.0, 2.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    _, cache = manual.max_pool_forward(x, 2)
    dx = manual.max_pool_backward(cache, jnp.array([[6.0, 5.0]]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(dx[0, ..., 0], [[2.0, 2.0, 5.0, 0.0], [0.0, 2.0, 0.0, 0.0]])


@pytest.mark.parametrize(("size", "kernel", "padding"), [((8, 6), 2, 0), ((9, 7), (2, 3), 0), ((7, 8), 3, 1)])
def test_pools_match_the_layers(size, kernel, padding):
    # Without ties, which the layer and the manual function treat differently.
    x = draw(0, 2, *size, 3)
    forward = partial(manual.max_pool_forward, kernel_size=kernel, padding=padding)
    layer = jax.vmap(MaxPool(kernel, padding=padding))
    assert_same_as_autodiff(forward, manual.max_pool_backward, layer, x)
    forward = partial(manual.avg_pool_forward, kernel_size=kernel, padding=padding)
    layer = jax.vmap(AvgPool(kernel, padding=padding))
    assert_same_as_autodiff(forward, manual.avg_pool_backward, layer, x)


@every_case
def test_avg_pool_matches_autodiff(size, kernel, stride, padding, dtype):
    grid = manual.windows(size, kernel, stride, padding)

    def reference(x):
        window, strides = (1, *both(kernel), 1), (1, *both(stride), 1)
        total = lax.reduce_window(x, 0.0, lax.add, window, strides, ((0, 0), *grid.edges, (0, 0)))
        return total / np.prod(both(kernel))

    forward = partial(manual.avg_pool_forward, kernel_size=kernel, stride=stride, padding=padding)
    assert_same_as_autodiff(forward, manual.avg_pool_backward, reference, draw(0, 2, *size, 3), dtype=dtype)


def test_dense_matches_autodiff():
    arguments = draw(0, 4, 7), draw(1, 3, 7), draw(2, 3)
    reference = lambda x, weight, bias: jnp.einsum("bi,oi->bo", x, weight) + bias  # noqa: E731
    assert_same_as_autodiff(manual.dense_forward, manual.dense_backward, reference, *arguments)


def test_relu_and_flatten_match_autodiff():
    x = draw(0, 2, 3, 4, 5)
    x[0, 0] = 0
    assert_same_as_autodiff(manual.relu_forward, manual.relu_backward, jax.nn.relu, x)
    flat = lambda x: x.reshape(2, 60)  # noqa: E731
    assert_same_as_autodiff(manual.flatten_forward, manual.flatten_backward, flat, x)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_softmax_cross_entropy_matches_autodiff(label_smoothing):
    labels = jnp.array([0, 3, 1, 1, 2, 0], jnp.int32)
    forward = partial(manual.softmax_cross_entropy_forward, labels=labels, label_smoothing=label_smoothing)
    backward = lambda cache, dy: dy * manual.softmax_cross_entropy_backward(cache)  # noqa: E731

    def reference(logits):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, 4, dtype=logits.dtype), label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    assert_same_as_autodiff(forward, backward, reference, 3 * draw(0, 6, 4))


def test_softmax_cross_entropy_does_not_overflow():
    loss, cache = manual.softmax_cross_entropy_forward(jnp.array([[1e4, 0.0]]), jnp.array([1], jnp.int32))
    assert loss == 1e4
    np.testing.assert_array_equal(manual.softmax_cross_entropy_backward(cache), [[1.0, -1.0]])


def test_window_counts_and_padding():
    assert manual.windows((28, 28), 3, 1, "VALID").count == (26, 26)
    same = manual.windows((7, 8), 3, 2, "SAME")
    assert (same.count, same.edges) == ((4, 4), ((1, 1), (0, 1)))
    assert manual.windows((7, 8), 3, 2, (1, 0)).edges == ((1, 1), (0, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 5), 3, 1, "VALID"), r"`kernel_size` \(=\(3, 3\)\) must fit into an image of 2x5 pixels"),
        (((5, 5), 0, 1, "VALID"), r"`kernel_size` \(=0\) must be an integer of at least 1"),
        (((5, 5), 3, (1, 0), "VALID"), r"`stride` \(=\(1, 0\)\) must be an integer of at least 1"),
        (((5, 5), 3, 1, "FULL"), r"`padding` \(='FULL'\) must be \"SAME\", \"VALID\""),
        (((5, 5), 3, 1, -1), r"`padding` \(=-1\) must be \"SAME\", \"VALID\", or integers of at least 0"),
        (((5, 5), 3, 1, ((0, -1), (0, 0))), r"`padding` \(=\(\(0, -1\), \(0, 0\)\)\) must be \"SAME\""),
    ],
)
def test_invalid_windows_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        manual.windows(*arguments)


def test_max_pool_refuses_padding_as_large_as_the_kernel():
    with pytest.raises(InputError, match=r"`padding` \(=2\) must be smaller than `kernel_size` \(=2\)"):
        manual.max_pool_forward(jnp.ones((1, 4, 4, 1)), 2, padding=2)
