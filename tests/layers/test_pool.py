import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jaxtyping import TypeCheckError

from eqxcnn.errors import InputError
from eqxcnn.layers import AvgPool, MaxPool, global_avg_pool, global_max_pool
from eqxcnn.runtime.compile import jit_once

# (height, width), kernel_size, stride, padding, ceil_mode
CASES = [
    ((8, 6), 2, None, 0, False),  # reshape and reduce
    ((9, 7), 2, None, 0, False),  # rows and columns left over
    ((9, 7), 2, None, 0, True),  # partly filled windows
    ((7, 8), 3, None, 1, False),
    ((8, 9), (2, 3), None, 0, False),
    ((8, 7), 3, 2, 1, False),  # the stem of a ResNet
    ((8, 7), 3, 2, 0, True),  # GoogLeNet, SqueezeNet
    ((6, 7), 3, 1, 1, False),
    ((7, 9), (3, 2), (1, 2), (1, 0), True),
    ((9, 9), 2, 3, 0, False),  # pixels between windows are ignored
    ((2, 3), 2, 2, 1, True),  # the last window would start in the padding
    ((1, 5), 3, 3, 0, True),  # one window, larger than the image
]


def windows(size, kernel, stride, edge, ceil_mode):
    """The (start, stop) of each window along an axis from `-edge` to `size + edge`, as torch documents it."""
    found, start = [], -edge
    while start + kernel <= size + edge:
        found.append((start, start + kernel))
        start += stride
    reached = found[-1][1] if found else -edge
    if ceil_mode and reached < size + edge and start < size:
        found.append((start, start + kernel))
    return found


def slow_pool(image, kernel_size, stride, padding, ceil_mode, value):
    """Computes `value(patch, count)` for each window: `patch` has its pixels, `count` is their number with padding."""
    kernel, edge = np.broadcast_to(kernel_size, 2), np.broadcast_to(padding, 2)
    stride = kernel if stride is None else np.broadcast_to(stride, 2)
    rows, columns = (windows(image.shape[a], kernel[a], stride[a], edge[a], ceil_mode) for a in (0, 1))
    out = np.zeros((len(rows), len(columns), image.shape[2]))
    for (i, (top, bottom)), (j, (left, right)) in ((r, c) for r in enumerate(rows) for c in enumerate(columns)):
        patch = np.asarray(image)[max(top, 0) : bottom, max(left, 0) : right]
        height, width = min(bottom, image.shape[0] + edge[0]) - top, min(right, image.shape[1] + edge[1]) - left
        out[i, j] = value(patch, height * width)
    return out


def draw(size, channels=2):
    """Returns values that differ by at least 1, so that small changes never change which value is the largest."""
    return jnp.float32(np.random.RandomState(0).permutation(size[0] * size[1] * channels).reshape(*size, channels))


def assert_pool(pool, image, slow):
    """Compares the values of `pool` with those of `slow`, and its gradient with a finite difference of `slow`."""
    rng = np.random.RandomState(1)
    direction, weight = rng.uniform(-0.1, 0.1, image.shape), rng.normal(size=slow(image).shape)

    @jit_once
    def run(image):
        out, backward = jax.vjp(pool, image)
        return out, *backward(jnp.asarray(weight, out.dtype))

    out, gradient = run(image)
    np.testing.assert_allclose(out, slow(image), rtol=1e-6)
    difference = (slow(image + direction) - slow(image - direction)) / 2
    np.testing.assert_allclose(np.sum(gradient * direction), np.sum(difference * weight), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("size", "kernel_size", "stride", "padding", "ceil_mode"), CASES)
def test_max_pool_values_are_those_of_the_definition(size, kernel_size, stride, padding, ceil_mode):
    def slow(image):
        return slow_pool(image, kernel_size, stride, padding, ceil_mode, lambda patch, _: patch.max((0, 1)))

    assert_pool(MaxPool(kernel_size, stride, padding, ceil_mode=ceil_mode), draw(size), slow)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("size", "kernel_size", "stride", "padding", "ceil_mode"), CASES)
def test_avg_pool_values_are_those_of_the_definition(size, kernel_size, stride, padding, ceil_mode, count_include_pad):
    def mean(patch, count):
        return patch.sum((0, 1)) / (count if count_include_pad else patch.shape[0] * patch.shape[1])

    def slow(image):
        return slow_pool(image, kernel_size, stride, padding, ceil_mode, mean)

    pool = AvgPool(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
    assert_pool(pool, draw(size), slow)


@pytest.mark.parametrize(("kernel", "stride", "edge"), [(2, 2, 0), (3, 2, 1)])
def test_max_pool_agrees_with_reduce_window_and_its_gradient(kernel, stride, edge):
    image = jnp.stack([draw((9, 8), channels=3)] * 2) * jnp.float32([1, -1]).reshape(2, 1, 1, 1)

    def reference(image):
        edges = ((0, 0), (edge, edge), (edge, edge), (0, 0))
        return lax.reduce_window(image, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), edges)

    def run(pool, image):
        weight = jnp.cos(jnp.arange(9 * 8 * 3 * 2.0)[: pool(image).size].reshape(pool(image).shape))
        out, backward = jax.vjp(pool, image)
        return out, *backward(weight)

    ours, theirs = jit_once(lambda image: (run(jax.vmap(MaxPool(kernel, stride, edge)), image), run(reference, image)))(
        image
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


@pytest.mark.parametrize("stride", [2, 1])
def test_the_first_of_tied_values_gets_the_gradient(stride):
    gradient = jit_once(jax.grad(lambda image: MaxPool(2, stride)(image).sum()))
    np.testing.assert_array_equal(gradient(jnp.ones((2, 2, 1)))[..., 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(gradient(jnp.array([[[0.0], [1.0]], [[1.0], [0.0]]]))[..., 0], [[0, 1], [0, 0]])


def test_no_gradient_is_lost_if_the_compiler_recomputes_the_image():
    x = jnp.float32(np.random.RandomState(0).normal(size=(2, 4, 4, 64)))

    # With little optimization, the recomputed normalized image differs in the last bits from the pooled one.
    @jit_once
    @jax.grad
    def gradient(x):
        normal = (x - x.mean((0, 1, 2))) * jax.lax.rsqrt(x.var((0, 1, 2)) + 1e-5) * 1.1 + 0.1
        return (jax.vmap(MaxPool(2))(normal) * jnp.arange(64)).sum()

    with jax.disable_jit():
        expected = gradient(x)
    np.testing.assert_allclose(gradient(x), expected, rtol=1e-3, atol=1e-3)


def test_averages_of_bfloat16_are_summed_in_float32():
    image = jnp.bfloat16(1 + np.random.RandomState(0).uniform(size=(7, 7, 8)))
    for pool in (AvgPool(7), AvgPool(7, stride=1)):
        with jax.numpy_dtype_promotion("strict"):
            out = pool(image)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_array_equal(out, pool(image.astype(jnp.float32)).astype(jnp.bfloat16))
    assert jax.eval_shape(MaxPool(3, 2), image).dtype == jnp.bfloat16


def test_global_pools():
    image = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(global_avg_pool(image), [5.0, 6.0])
    np.testing.assert_array_equal(global_max_pool(image), [10.0, 11.0])


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
def test_invalid_sizes_are_rejected(make):
    with pytest.raises(InputError, match=r"`kernel_size` \(=0\) must be an integer of at least 1"):
        make(0)
    with pytest.raises(InputError, match=r"`stride` \(=\(1, 0\)\)"):
        make(2, (1, 0))
    with pytest.raises(InputError, match=r"`padding` \(=-1\) must be an integer of at least 0"):
        make(2, padding=-1)
    with pytest.raises(InputError, match=r"`padding` \(=2\) must be at most half of `kernel_size` \(=3\)"):
        make(3, padding=2)
    with pytest.raises(InputError, match=r"`image` \(2 pixels wide\) is too small for `kernel_size` \(=\(3, 3\)\)"):
        make(3)(jnp.ones((3, 2, 1)))
    with pytest.raises(TypeCheckError, match=r"(?s)parameter 'image'.*h w c"):
        make(2)(jnp.ones((1, 4, 4, 3)))
