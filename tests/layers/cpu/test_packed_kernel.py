"""Kernels that are packed once for oneDNN give the same results as plain kernels."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.cost import count_multiply_adds
from eqxcnn.layers.cpu import onednn, packed_kernel
from eqxcnn.layers.cpu.fused_convolution import convolve_fused, name_fused
from eqxcnn.layers.cpu.implementation import XLA, Window
from eqxcnn.layers.cpu.kernel_form import choose_form
from eqxcnn.layers.cpu.packed_kernel import find_block, pack, unpack

needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="kernels are packed only for oneDNN")
SAME, NONE = ((1, 1), (1, 1)), ((0, 0), (0, 0))
#: Batch size, height and width, kernel `[kh kw i/groups o]`, stride, edges and groups.
CASES = {
    "3x3": (1, 14, (3, 3, 64, 64), 1, SAME, 1),
    "channels that fill no block": (2, 10, (3, 3, 40, 72), 1, SAME, 1),
    "few channels": (4, 16, (3, 3, 32, 20), 1, SAME, 1),
    "strided": (3, 17, (3, 3, 64, 80), 2, ((0, 1), (1, 1)), 1),
    "grouped": (2, 16, (3, 3, 16, 128), 1, SAME, 4),
    "groups that fill no block": (2, 16, (3, 3, 16, 160), 1, SAME, 4),
    "pointwise": (1, 7, (1, 1, 256, 512), 1, NONE, 1),
    "strided pointwise": (2, 15, (1, 1, 128, 384), 2, NONE, 1),
}


def make_case(case, seed=0):
    """Returns random images, kernel, bias and shortcut, and the window."""
    batch, size, shape, stride, edges, groups = CASES[case]
    window, rng = Window((stride, stride), edges, (1, 1), groups), np.random.default_rng(seed)
    images = rng.standard_normal((batch, size, size, shape[2] * groups), np.float32)
    # Outputs between -10 and 10, so that ReLU6 cuts off both ends.
    kernel = rng.standard_normal(shape, np.float32) * 3 / np.prod(shape[:3]) ** 0.5
    out = jax.eval_shape(partial(XLA.convolve, window=window), jnp.asarray(images), jnp.asarray(kernel))
    return images, kernel, rng.standard_normal(shape[3], np.float32), rng.standard_normal(out.shape, np.float32), window


@needs_onednn
@pytest.mark.parametrize(("activation", "has_shortcut"), [("relu", True), ("relu6", False), ("silu", True)])
@pytest.mark.parametrize("case", CASES)
def test_a_packed_kernel_gives_the_result_of_separate_operations(case, activation, has_shortcut):
    images, kernel, bias, shortcut, window = make_case(case)
    shortcut = shortcut if has_shortcut else None
    block = find_block(images.shape, kernel.shape, window, name_fused(len(bias), has_shortcut, activation))
    assert block is not None
    packed = pack(kernel, block, window.groups)
    function = jax.jit(partial(convolve_fused, window=window, activation=activation))
    assert "weights_prepacked" in function.lower(images, packed, bias, shortcut).as_text()
    out = np.asarray(XLA.convolve(jnp.asarray(images), jnp.asarray(kernel), window), np.float64) + bias
    out = out + (shortcut if has_shortcut else 0)
    expected = {
        "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "silu": lambda x: x / (1 + np.exp(-x)),
    }[activation](out)  # fmt: skip
    np.testing.assert_allclose(function(images, packed, bias, shortcut), expected, atol=3e-5)
    assert count_multiply_adds(function, images, packed, bias, shortcut) == out.size * np.prod(kernel.shape[:3])


@pytest.mark.parametrize(("block", "groups"), [(16, 1), (48, 1), (16, 2)])
def test_unpacking_returns_the_kernel(block, groups):
    kernel = np.random.default_rng(0).standard_normal((3, 2, 5, 50 * groups), np.float32)
    packed = pack(kernel, block, groups)
    per_group = -(-50 // block)
    assert packed.shape == (groups * per_group, 3, 2, 5, block)
    np.testing.assert_array_equal(packed[1, 2, 1, 4, 0], kernel[2, 1, 4, block])
    # The last block of each group holds what is left of its channels, and zeros.
    last = np.pad(kernel[..., 50 * (groups - 1) + 50 // block * block :], [(0, 0)] * 3 + [(0, -50 % block)])
    np.testing.assert_array_equal(packed[-1], last)
    np.testing.assert_array_equal(unpack(jnp.asarray(packed), 50 * groups, groups), kernel)


@pytest.mark.parametrize("case", ["channels that fill no block", "groups that fill no block"])
def test_other_platforms_and_vmap_unpack_the_kernel(case):
    images, kernel, bias, _, window = make_case(case)
    images, kernel, bias, packed = map(jnp.asarray, (images, kernel, bias, pack(kernel, 64, window.groups)))
    call = partial(convolve_fused, shortcut=None, window=window, activation="relu")
    expected = call(images, kernel, bias)
    found = jax.vmap(call, (0, None, None))(images[None], packed, bias)
    np.testing.assert_allclose(found[0], expected, atol=3e-5)
    program = jax.jit(call).trace(images, packed, bias).lower(lowering_platforms=("cuda",)).as_text()
    assert "onednn" not in program
    with jax.disable_jit():
        np.testing.assert_allclose(call(images, packed, bias), expected, atol=3e-5)


@needs_onednn
def test_a_wrong_size_of_blocks_is_not_accepted(monkeypatch):
    images, kernel, _, _, window = make_case("3x3", seed=1)
    arguments = images.shape, kernel.shape, (1, 14, 14, 64), window, ("BIAS", "RELU")
    right = packed_kernel._try_blocks.__wrapped__(*arguments)
    assert right in packed_kernel._BLOCKS
    monkeypatch.setattr(packed_kernel, "_BLOCKS", tuple(b for b in packed_kernel._BLOCKS if b != right))
    assert packed_kernel._try_blocks.__wrapped__(*arguments) is None


@needs_onednn
def test_the_chosen_form_packs_each_group():
    images, kernel, bias, _, window = make_case("groups that fill no block")
    form = choose_form(images.shape, kernel.shape, window, ("BIAS",))
    assert form.block is not None
    packed = form.apply(kernel)
    assert packed.shape[0] == 4 * -(-40 // form.block)
    function = jax.jit(partial(convolve_fused, shortcut=None, window=window, activation=None))
    plain, found = (function(images, each, bias) for each in (kernel, packed))
    np.testing.assert_allclose(found, plain, atol=3e-5)


@needs_onednn
def test_the_size_found_before_is_tried_first(monkeypatch):
    images, kernel, _, _, window = make_case("3x3")
    arguments = images.shape, kernel.shape, (1, 14, 14, 64), window, ("BIAS", "RELU")
    right = packed_kernel._try_blocks.__wrapped__(*arguments)
    tried = []
    monkeypatch.setattr(packed_kernel, "_found", Counter())
    monkeypatch.setattr(packed_kernel, "_BLOCKS", (*(b for b in packed_kernel._BLOCKS if b != right), right))
    monkeypatch.setattr(packed_kernel, "pack", lambda kernel, block, groups: tried.append(block) or pack(kernel, block))
    assert [packed_kernel._try_blocks.__wrapped__(*arguments) for _ in range(2)] == [right, right]
    assert tried == [*packed_kernel._BLOCKS, right]


@pytest.mark.parametrize("reason", ["many pixels", "few multiply-adds", "depthwise", "no oneDNN"])
def test_kernels_are_not_packed_where_that_saves_little(reason, monkeypatch):
    # The search could find no block for another reason.
    monkeypatch.setattr(packed_kernel, "_try_blocks", lambda *_: 64)
    images, kernel, _, _, window = make_case("3x3")
    shape = kernel.shape
    if reason == "many pixels":
        images = np.zeros((8, *images.shape[1:]), np.float32)
    elif reason == "few multiply-adds":
        images = images[:, :2]
    elif reason == "depthwise":
        images, shape = np.zeros((1, 30, 30, 1024), np.float32), (3, 3, 1, 1024)
        window = window._replace(groups=1024)
    else:
        monkeypatch.setenv("EQXCNN_ONEDNN", "0")
    assert find_block(images.shape, shape, window, ("BIAS",)) is None
