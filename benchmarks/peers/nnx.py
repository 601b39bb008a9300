"""Networks in Flax NNX, in the style of Flax's own examples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .linen import MOBILE_STAGES


class MLP(nnx.Module):
    """A perceptron with one hidden layer of 128 units."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden, self.head = nnx.Linear(784, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


class LeNet(nnx.Module):
    """LeNet-5 with ReLU and max pooling."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.fc1, self.fc2 = nnx.Linear(400, 120, rngs=rngs), nnx.Linear(120, 84, rngs=rngs)
        self.head = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.fc1(x.reshape(len(x), -1)))
        return self.head(nnx.relu(self.fc2(x)))


class SimpleCNN(nnx.Module):
    """The network of Flax's MNIST example."""

    def __init__(self, channels: int, features: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(channels, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.fc, self.head = nnx.Linear(features, 256, rngs=rngs), nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv1, self.conv2):
            x = nnx.avg_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        return self.head(nnx.relu(self.fc(x.reshape(len(x), -1))))


class ConvNorm(nnx.Module):
    """A convolution without bias, followed by BatchNorm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, rngs: nnx.Rngs
    ):
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            (kernel_size, kernel_size),
            (stride, stride),
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(out_channels, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, in_channels: int, width: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(in_channels, width, 3, stride, rngs=rngs)
        self.conv2 = ConvNorm(width, width, 3, rngs=rngs)
        self.stride, self.added_channels = stride, width - in_channels

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv2(nnx.relu(self.conv1(x)))
        x = x[:, :: self.stride, :: self.stride]
        return nnx.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.added_channels))))


class ResNet(nnx.Module):
    """The CIFAR network of He et al. 2015, section 4.2, with `n` blocks per stage."""

    def __init__(self, n: int, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 16, 3, rngs=rngs)
        rows = [(16, 16, 1)] * n + [(16, 32, 2)] + [(32, 32, 1)] * (n - 1) + [(32, 64, 2)] + [(64, 64, 1)] * (n - 1)
        self.blocks = nnx.List([Block(*row, rngs=rngs) for row in rows])
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class InvertedResidual(nnx.Module):
    """An inverted residual block with ReLU, and a shortcut if the stride is 1."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int, rngs: nnx.Rngs):
        hidden = expansion * in_channels
        self.expand = ConvNorm(in_channels, hidden, 1, rngs=rngs)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, hidden, rngs=rngs)
        self.project = ConvNorm(hidden, out_channels, 1, rngs=rngs)
        self.has_shortcut = stride == 1
        self.shortcut = nnx.data(
            ConvNorm(in_channels, out_channels, 1, rngs=rngs) if stride == 1 and in_channels != out_channels else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.project(nnx.relu(self.depthwise(nnx.relu(self.expand(x)))))
        if not self.has_shortcut:
            return y
        return y + (x if self.shortcut is None else self.shortcut(x))


class MobileNetV2(nnx.Module):
    """MobileNetV2 of Sandler et al. 2018 for CIFAR-10."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 32, 3, rngs=rngs)
        blocks, in_channels = [], 32
        for expansion, out_channels, count, first_stride in MOBILE_STAGES:
            for stride in (first_stride, *[1] * (count - 1)):
                blocks.append(InvertedResidual(in_channels, out_channels, expansion, stride, rngs))
                in_channels = out_channels
        self.blocks = nnx.List(blocks)
        self.last, self.head = ConvNorm(in_channels, 1280, 1, rngs=rngs), nnx.Linear(1280, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(nnx.relu(self.last(x)).mean((1, 2)))


#: Builders of the networks by their names in the zoo.
NETS: dict[str, Callable[[nnx.Rngs], Any]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "mnist_cnn": partial(SimpleCNN, 1, 3136),
    "cifar_cnn": partial(SimpleCNN, 3, 4096),
    "resnet20": partial(ResNet, 3),
    "mobilenet_v2_cifar": MobileNetV2,
}
