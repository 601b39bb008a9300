from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers.blocks.inverted_residual import FusedResidual, InvertedResidual, stage_ends
from eqxcnn.layers.blocks.residual import BasicBlock, Bottleneck, last_norm, padded_identity, projection
from eqxcnn.layers.blocks.stages import make_layers, run_layers

KEY = jax.random.key(0)


def shapes(make):
    """Shapes of a block's kernels `(kh, kw, in, out)`, by their dotted paths."""
    block, _ = eqx.filter_eval_shape(eqx.nn.make_with_state(make))
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(block, lambda leaf: hasattr(leaf, "shape")))
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
    return {name: shape for name, shape in named.items() if len(shape) == 4}


@pytest.mark.parametrize(
    ("strides", "ends"), [((2, 1, 2, 1, 1), (1, 4)), ((1, 1, 1), (2,)), ((2, 2, 2), (0, 1, 2)), ((1, 3), (0, 1))]
)
def test_stage_ends(strides, ends):
    assert stage_ends(strides) == ends


def test_padded_identity_by_hand():
    x = jnp.arange(9.0).reshape(3, 3, 1)
    out = padded_identity(x, channels=3, stride=2)
    np.testing.assert_array_equal(out[..., 0], [[0, 2], [6, 8]])
    np.testing.assert_array_equal(out[..., 1:], np.zeros((2, 2, 2)))


def test_last_norm_and_projection():
    make = eqx.nn.make_with_state(last_norm)
    assert [float(make(2, zero)[0].weight.sum()) for zero in (False, True)] == [2, 0]
    assert projection(4, 4, 1, key=KEY) is None
    assert shapes(lambda: projection(4, 4, 2, key=KEY)) == {"conv.weight": (1, 1, 4, 4)}


def test_kernels_of_residual_blocks():
    assert shapes(lambda: BasicBlock(4, 8, 2, 0.0, key=KEY)) == {
        "conv1.weight": (3, 3, 4, 8),
        "conv2.weight": (3, 3, 8, 8),
        "downsample.conv.weight": (1, 1, 4, 8),
    }
    # ResNeXt 32x4d, first stage (Xie et al. 2016, table 1): 32 groups of 4 channels.
    assert shapes(lambda: Bottleneck(64, 64, 1, 0.0, groups=32, base_width=4, key=KEY)) == {
        "conv1.weight": (1, 1, 64, 128),
        "conv2.weight": (3, 3, 4, 128),
        "conv3.weight": (1, 1, 128, 256),
        "downsample.conv.weight": (1, 1, 64, 256),
    }


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (lambda: InvertedResidual(4, 6, 8, key=KEY), [(1, 1, 4, 8), (3, 3, 1, 8), (1, 1, 8, 6)]),
        (lambda: InvertedResidual(4, 6, None, 5, key=KEY), [(5, 5, 1, 4), (1, 1, 4, 6)]),
        (lambda: FusedResidual(4, 6, 8, key=KEY), [(3, 3, 4, 8), (1, 1, 8, 6)]),
        (lambda: FusedResidual(4, 6, None, key=KEY), [(3, 3, 4, 6)]),
    ],
)
def test_kernels_of_inverted_residuals(make, kernels):
    assert list(shapes(make).values()) == kernels


@pytest.mark.parametrize(("out_channels", "stride", "has_shortcut"), [(4, 1, True), (4, 2, False), (6, 1, False)])
def test_inverted_residuals_have_a_shortcut_where_the_shape_is_kept(out_channels, stride, has_shortcut):
    for make in (InvertedResidual, FusedResidual):
        block = eqx.filter_eval_shape(make, 4, out_channels, 8, 3, stride, key=KEY)
        assert block.has_shortcut == has_shortcut


def test_stages_begin_with_stride_2_except_the_first():
    calls = []

    def make_block(in_channels, width, stride, rate, *, key):
        calls.append((in_channels, width, stride, round(rate, 3)))
        return SimpleNamespace(out_channels=2 * width)

    layers = make_layers(make_block, 3, (4, 8), (2, 3), 0.4, key=KEY)
    assert [len(layer) for layer in layers] == [2, 3]
    assert calls == [(3, 4, 1, 0.0), (8, 4, 1, 0.1), (8, 8, 2, 0.2), (16, 8, 1, 0.3), (16, 8, 1, 0.4)]


def test_run_layers_returns_the_map_at_the_end_of_each_stage():
    keys, (_, empty) = [], eqx.nn.make_with_state(lambda: None)()

    def add(amount):
        def block(x, state, *, key):
            keys.append(key)
            return x + amount, state

        return block

    layers = ((add(1), add(2)), (add(4),))
    maps, state = run_layers(layers, jnp.zeros((1, 1, 1)), empty, key=None)
    assert [float(stage[0, 0, 0]) for stage in maps] == [3, 7]
    assert (state, keys) == (empty, [None] * 3)
