"""The layers that `benchmarks.layers` times, in this library and as plain JAX operations on a batch."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqxcnn.forward_pass import BATCH_AXIS
from eqxcnn.layers import AvgPool, BatchNorm, Conv, MaxPool, global_avg_pool
from eqxcnn.runtime.compile import async_jit

BATCH = 128


class Layer(NamedTuple):
    """A layer on images `[h w c]`.

    `padding` is half the kernel size, or 0 if the stride equals the kernel size, as in pools without overlap.
    """

    kind: Literal["conv", "max", "avg", "global", "norm"]
    image: tuple[int, int, int]
    kernel: int = 1
    stride: int = 1
    out_channels: int = 0
    groups: int = 1

    @property
    def padding(self) -> int:
        """Returns the number of pixels added on each side."""
        return 0 if self.kernel == self.stride else self.kernel // 2


LAYERS = {
    "convolution 3x3, 32x32x3 to 16": Layer("conv", (32, 32, 3), 3, 1, 16),
    "convolution 3x3, 32x32x16 to 16": Layer("conv", (32, 32, 16), 3, 1, 16),
    "convolution 3x3, 16x16x32 to 64, stride 2": Layer("conv", (16, 16, 32), 3, 2, 64),
    "convolution 5x5, 28x28x1 to 6": Layer("conv", (28, 28, 1), 5, 1, 6),
    "convolution 5x5, 14x14x6 to 16": Layer("conv", (14, 14, 6), 5, 1, 16),
    "convolution 1x1, 16x16x64 to 64": Layer("conv", (16, 16, 64), 1, 1, 64),
    "convolution 3x3 in groups of 8, 16x16x104 to 104": Layer("conv", (16, 16, 104), 3, 1, 104, 13),
    "depthwise 3x3, 16x16x96": Layer("conv", (16, 16, 96), 3, 1, 96, 96),
    "depthwise 3x3, 16x16x96, stride 2": Layer("conv", (16, 16, 96), 3, 2, 96, 96),
    "depthwise 3x3, 16x16x144": Layer("conv", (16, 16, 144), 3, 1, 144, 144),
    "depthwise 3x3, 16x16x144, stride 2": Layer("conv", (16, 16, 144), 3, 2, 144, 144),
    "max pool 2x2, 32x32x32": Layer("max", (32, 32, 32), 2, 2),
    "average pool 2x2, 32x32x32": Layer("avg", (32, 32, 32), 2, 2),
    "max pool 3x3, 32x32x64, stride 2": Layer("max", (32, 32, 64), 3, 2),
    "global average, 8x8x64": Layer("global", (8, 8, 64)),
    "BatchNorm, 32x32x16": Layer("norm", (32, 32, 16)),
    "BatchNorm, 8x8x64": Layer("norm", (8, 8, 64)),
}


def our_case(layer: Layer, backward: bool) -> Callable[[], Any]:
    """Returns a function that calls this library's layer on a batch and, if `backward` is true, computes gradients."""
    return _make_case(*make_layer(layer), layer, backward)


def jax_case(layer: Layer, backward: bool) -> Callable[[], Any]:
    """Returns a function that calls plain JAX operations on a batch and, if `backward` is true, computes gradients."""
    return _make_case(*make_plain_operation(layer), layer, backward)


def make_layer(layer: Layer) -> tuple[Any, Callable[[Any, jax.Array], Any]]:
    """Returns the layer, and a function that applies the layer to a batch."""
    if layer.kind == "norm":
        norm, state = eqx.nn.make_with_state(BatchNorm)(layer.image[-1])

        def normalize(norm: BatchNorm, x: jax.Array) -> Any:
            start = jax.tree.map(jnp.asarray, state)  # an Equinox state can only be used once
            return jax.vmap(lambda image: norm(image, start), out_axes=(0, None), axis_name=BATCH_AXIS)(x)

        return norm, normalize
    if layer.kind == "conv":
        module = Conv(
            layer.image[-1], layer.out_channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups,
            use_bias=False, key=jax.random.key(0),
        )  # fmt: skip
    else:
        pool = {"max": MaxPool, "avg": AvgPool}.get(layer.kind)
        module = global_avg_pool if pool is None else pool(layer.kernel, layer.stride, layer.padding)
    return module, lambda module, x: jax.vmap(module)(x)


def make_plain_operation(layer: Layer) -> tuple[Any, Callable[[Any, jax.Array], Any]]:
    """Returns the weights, and a function of weights and batch; the function uses as few JAX operations as possible."""
    edges = ((0, 0), *[(layer.padding, layer.padding)] * 2, (0, 0))
    window, strides = (1, layer.kernel, layer.kernel, 1), (1, layer.stride, layer.stride, 1)
    match layer.kind:
        case "conv":
            return make_layer(layer)[0].weight, lambda weight, x: lax.conv_general_dilated(
                x, weight, (layer.stride,) * 2, edges[1:3], dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=layer.groups,
            )  # fmt: skip
        case "max":
            return None, lambda _, x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, edges)
        case "avg":
            area = layer.kernel**2
            return None, lambda _, x: lax.reduce_window(x, 0.0, lax.add, window, strides, edges) / area
        case "global":
            return None, lambda _, x: x.mean((1, 2))
        case "norm":
            channels = layer.image[-1]
            return (jnp.ones(channels), jnp.zeros(channels)), _batch_norm


def _batch_norm(weights: tuple[jax.Array, jax.Array], x: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the normalized batch, and its mean and variance, which running averages need."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(var + 1e-5) * weights[0] + weights[1], mean, var


def _make_case(
    weights: Any, function: Callable[[Any, jax.Array], Any], layer: Layer, backward: bool
) -> Callable[[], Any]:
    x = make_batch(layer)
    if not backward:
        forward = async_jit(function)
        return lambda: forward(weights, x)

    def forward_and_backward(weights: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        def apply(parts: tuple[Any, jax.Array]) -> tuple[jax.Array, Any]:
            result = function(*parts)
            out, *rest = result if isinstance(result, tuple) else (result,)
            return out, rest

        out, vjp, rest = eqx.filter_vjp(apply, (weights, x), has_aux=True)
        return out, rest, vjp(cotangent)

    step = async_jit(forward_and_backward)
    out = jax.eval_shape(lambda: function(weights, x))
    cotangent = jnp.ones((out[0] if isinstance(out, tuple) else out).shape)
    return lambda: step(weights, x, cotangent)


def make_batch(layer: Layer) -> jax.Array:
    """Returns a random batch for the layer; every call returns the same batch."""
    return jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, *layer.image), np.float32))
