"""Layers run forward and backward with any of the user's JAX settings."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.layers import (
    AdaptiveAvgPool,
    Attention,
    AvgPool,
    BatchNorm,
    Conv,
    ConvNorm,
    Dropout,
    DropPath,
    LayerNorm,
    Linear,
    MaxPool,
    SqueezeExcite,
    each_position,
    global_avg_pool,
    global_max_pool,
)
from eqxcnn.layers.blocks.inverted_residual import InvertedResidual
from eqxcnn.layers.blocks.residual import BasicBlock
from eqxcnn.layers.cpu import onednn
from eqxcnn.runtime.compile import jit_once

KEY = jax.random.key(0)


def numpy_init(key, shape, dtype=jnp.float32):
    """Draws random values with NumPy, because JAX would compile a program for each shape."""
    return jnp.asarray(np.random.RandomState(0).normal(size=shape) / 2, dtype)


def make_conv(*arguments, **keywords):
    return Conv(*arguments, **keywords, weight_init=numpy_init, key=KEY)


LAYERS = {
    "conv": lambda: make_conv(2, 3, 3),
    "conv of few channels": lambda: make_conv(2, 3, (2, 3), stride=2, dilation=(1, 2), use_bias=False),
    "conv in groups": lambda: make_conv(2, 4, 3, groups=2),
    "conv 1x1": lambda: make_conv(2, 4, 1),
    "depthwise conv": lambda: make_conv(2, 2, 3, groups=2),
    "max pool": lambda: MaxPool(2),
    "max pool that overlaps": lambda: MaxPool(3, 2, 1),
    "avg pool": lambda: AvgPool(2),
    "avg pool that overlaps": lambda: AvgPool(3, 2, 1, count_include_pad=False),
    "adaptive pool": lambda: AdaptiveAvgPool(3),
    "global avg pool": lambda: global_avg_pool,
    "global max pool": lambda: global_max_pool,
    "batch norm": lambda: BatchNorm(2),
    "batch norm in eval mode": lambda: BatchNorm(2, inference=True),
    "conv norm": lambda: ConvNorm(2, 3, weight_init=numpy_init, key=KEY),
    "layer norm": lambda: lambda x: each_position(LayerNorm(2), x),
    "linear": lambda: lambda x: each_position(Linear(2, 5, key=KEY), x),
    "attention": lambda: lambda x: Attention(2, 1, numpy_init, key=KEY)(x.reshape(-1, 2)),
    "squeeze-excite": lambda: SqueezeExcite(2, 1, key=KEY),
    "dropout": lambda: lambda x: Dropout(0.5)(x, key=KEY),
    "drop path": lambda: lambda x: DropPath(0.5)(x, key=KEY),
    "residual block": lambda: BasicBlock(2, 4, 2, 0.5, key=KEY),
    "inverted residual": lambda: InvertedResidual(2, 2, 4, drop_path_rate=0.5, weight_init=numpy_init, key=KEY),
}
STATEFUL = (BatchNorm, ConvNorm, BasicBlock, InvertedResidual)
RANDOM = (BasicBlock, InvertedResidual)


def gradients(make, images):
    """Runs a layer on a batch, and returns its output and its gradients."""
    layer, state = eqx.nn.make_with_state(make)()

    def call(layer, image):
        keywords = {"key": KEY} if isinstance(layer, RANDOM) else {}
        return layer(image, state, **keywords)[0] if isinstance(layer, STATEFUL) else layer(image)

    def total(both):
        out = jax.vmap(lambda image: call(both[0], image), axis_name="batch")(both[1])
        return jnp.square(out).sum(), out

    return eqx.filter_grad(total, has_aux=True)((layer, images))


@pytest.mark.parametrize("uses_onednn", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_strict_promotion_of_ranks_and_dtypes(name, uses_onednn, monkeypatch):
    if not uses_onednn:
        monkeypatch.setattr(onednn, "is_available", lambda: False)
    images = jax.ShapeDtypeStruct((2, 6, 6, 2), jnp.float32)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.jit(partial(gradients, LAYERS[name])).lower(images)


@pytest.mark.parametrize("name", ["conv", "conv 1x1", "depthwise conv", "max pool", "conv norm"])
def test_disabled_jit(name):
    images = numpy_init(None, (2, 4, 4, 2))
    expected = jit_once(gradients)(LAYERS[name], images)
    with jax.disable_jit():
        found = gradients(LAYERS[name], images)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
