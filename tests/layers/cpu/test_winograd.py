"""Winograd's algorithm for 3x3 convolutions, against direct convolutions in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers.cpu import kernel_form, onednn, winograd
from eqxcnn.layers.cpu.implementation import XLA, Window
from eqxcnn.layers.cpu.kernel_form import KernelForm, choose_form
from eqxcnn.layers.cpu.winograd import can_use_winograd, convolve_by_winograd, describe_products, transform_kernel

needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="the products are faster only by oneDNN")
SAME = ((1, 1), (1, 1))
#: Batch size, height, width, input and output channels, edges, and the form of the kernel.
CASES = {
    "whole tiles": (8, 16, 16, 32, 32, SAME, "packed"),
    "parts of tiles": (6, 13, 18, 48, 32, SAME, "packed"),
    "uneven edges": (4, 14, 15, 32, 64, ((0, 2), (3, 1)), "packed"),
    "no edges": (4, 10, 19, 64, 48, ((0, 0), (0, 0)), "packed"),
    "many tiles": (5, 65, 65, 32, 32, SAME, "transformed"),
}


def make_case(case):
    """Returns random images without negative numbers, a random kernel, and the window."""
    batch, height, width, inputs, outputs, edges, _ = CASES[case]
    rng = np.random.default_rng(0)
    images = np.maximum(rng.standard_normal((batch, height, width, inputs), np.float32), 0)
    kernel = rng.standard_normal((3, 3, inputs, outputs), np.float32) / (9 * inputs) ** 0.5
    return images, kernel, Window((1, 1), edges, (1, 1), 1)


def convolve_directly(images, kernel, edges):
    """Returns the convolution in float64, computed with NumPy."""
    padded = np.pad(images.astype(np.float64), ((0, 0), *edges, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwiyx,yxio->nhwo", patches, kernel.astype(np.float64), optimize=True)


def test_the_matrices_convolve_exactly_in_one_dimension():
    rng = np.random.default_rng(0)
    pixels, kernel = rng.standard_normal(6), rng.standard_normal(3)
    found = winograd._A @ ((winograd._G @ kernel) * (winograd._B @ pixels))
    np.testing.assert_allclose(found, np.correlate(pixels, kernel, "valid"), atol=1e-13)
    # These are multiplied in float32.
    for matrix in (winograd._A, winograd._B):
        np.testing.assert_array_equal(matrix, matrix.astype(np.float32))


@needs_onednn
@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_those_of_a_direct_convolution(case):
    images, kernel, window = make_case(case)
    form = choose_form(images.shape, kernel.shape, window, ("BIAS",))
    assert form.is_transformed
    assert (form.block is not None) == (CASES[case][-1] == "packed")
    found = convolve_by_winograd(jnp.asarray(images), jnp.asarray(form.apply(kernel)), window, kernel.shape[3])
    expected = convolve_directly(images, kernel, window.edges)
    # The points 0, 1, -1, 2 and -2 have about four times this error.
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_without_oneDNN_the_outputs_are_the_same(monkeypatch):
    monkeypatch.setenv("EQXCNN_ONEDNN", "0")
    images, kernel, window = make_case("parts of tiles")
    expected = convolve_directly(images, kernel, window.edges)
    with jax.disable_jit():
        found = convolve_by_winograd(
            jnp.asarray(images), jnp.asarray(transform_kernel(kernel)), window, kernel.shape[3]
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


@needs_onednn
def test_the_products_are_one_call_to_oneDNN():
    images, kernel, window = make_case("whole tiles")
    operands = jnp.asarray(images), jnp.asarray(transform_kernel(kernel))
    program = convolve_by_winograd.lower(*operands, window, kernel.shape[3]).as_text()
    assert program.count("__onednn$convolution") == 1
    assert "stablehlo.convolution" not in program


IMAGES, KERNEL, WINDOW = (4, 14, 14, 64), (3, 3, 64, 64), Window((1, 1), SAME, (1, 1), 1)


@pytest.mark.parametrize(
    ("images", "kernel", "window", "is_used"),
    [
        (IMAGES, KERNEL, WINDOW, True),
        (IMAGES, (5, 5, 64, 64), WINDOW._replace(edges=((2, 2), (2, 2))), False),
        (IMAGES, (3, 1, 64, 64), WINDOW._replace(edges=((1, 1), (0, 0))), False),
        (IMAGES, KERNEL, WINDOW._replace(stride=(1, 2)), False),
        (IMAGES, KERNEL, WINDOW._replace(dilation=(2, 1)), False),
        ((4, 14, 14, 128), KERNEL, WINDOW._replace(groups=2), False),
        ((4, 14, 14, 16), (3, 3, 16, 64), WINDOW, False),
        (IMAGES, (3, 3, 64, 16), WINDOW, False),
        ((4, 14, 14, 72), (3, 3, 72, 64), WINDOW, False),
        (IMAGES, (3, 3, 64, 72), WINDOW, False),
        ((1, 12, 20, 64), KERNEL, WINDOW, False),  # 15 tiles
        ((1, 16, 16, 64), KERNEL, WINDOW, True),  # 16 tiles
        ((64, 84, 84, 64), KERNEL, WINDOW, True),
        ((64, 88, 88, 64), KERNEL, WINDOW, False),
        ((64, 60, 60, 64), (3, 3, 64, 256), WINDOW, False),
    ],
)
def test_convolutions_for_which_it_is_faster(images, kernel, window, is_used):
    assert can_use_winograd(images, kernel, window) == is_used


def test_few_tiles_need_a_packed_kernel(monkeypatch):
    tiles, kernel, window = describe_products(IMAGES, KERNEL, WINDOW)
    assert (tiles, kernel, window.groups) == ((1, 64, 1, 36 * 64), (1, 1, 64, 36 * 64), 36)
    monkeypatch.setattr(kernel_form, "find_block", lambda images, *_: 32 if images == tiles else None)
    assert choose_form(IMAGES, KERNEL, WINDOW, ("BIAS",)) == KernelForm(True, 32, 36)
    monkeypatch.setattr(kernel_form, "find_block", lambda *_: None)
    assert choose_form(IMAGES, KERNEL, WINDOW, ("BIAS",)) == KernelForm(False, None)
    assert choose_form((80, *IMAGES[1:]), KERNEL, WINDOW, ("BIAS",)) == KernelForm(True, None, 36)


def test_the_result_has_the_type_of_a_convolution():
    images, kernel, window = make_case("uneven edges")
    expected = jax.eval_shape(partial(XLA.convolve, window=window), jnp.asarray(images), jnp.asarray(kernel))
    images = jnp.asarray(images)
    found = jax.eval_shape(partial(convolve_by_winograd, window=window, outputs=64), images, transform_kernel(kernel))
    assert found == expected
