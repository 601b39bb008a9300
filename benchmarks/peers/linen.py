"""Networks in Flax linen, in the style of Flax's own examples."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Conv = partial(nn.Conv, use_bias=False)
#: Expansion, channels, blocks and first stride of each stage of MobileNetV2 for 32x32 images.
MOBILE_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class MLP(nn.Module):
    """A perceptron with one hidden layer of 128 units."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        x = nn.max_pool(nn.relu(nn.Conv(6, (5, 5))(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(120)(x.reshape(len(x), -1)))
        return nn.Dense(10)(nn.relu(nn.Dense(84)(x)))


class SimpleCNN(nn.Module):
    """The network of Flax's MNIST example."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        for width in (32, 64):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(x.reshape(len(x), -1))))


class MobileNetV2(nn.Module):
    """MobileNetV2 of Sandler et al. 2018 for CIFAR-10, with ReLU and with 1x1 convolutions in some of the shortcuts."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm()(Conv(32, (3, 3))(x)))
        for expansion, width, blocks, first_stride in MOBILE_STAGES:
            for stride in (first_stride, *[1] * (blocks - 1)):
                hidden = expansion * x.shape[-1]
                y = nn.relu(norm()(Conv(hidden, (1, 1))(x)))
                y = nn.relu(norm()(Conv(hidden, (3, 3), (stride, stride), feature_group_count=hidden)(y)))
                y = norm()(Conv(width, (1, 1))(y))
                x = y + (x if width == x.shape[-1] else norm()(Conv(width, (1, 1))(x))) if stride == 1 else y
        x = nn.relu(norm()(Conv(1280, (1, 1))(x)))
        return nn.Dense(10)(x.mean((1, 2)))


class ResNet(nn.Module):
    """The CIFAR network of He et al. 2015, section 4.2, with `n` blocks per stage and shortcuts without parameters."""

    n: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm()(Conv(16, (3, 3))(x)))
        for width, stage in ((16, 0), (32, 1), (64, 2)):
            for block in range(self.n):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(Conv(width, (3, 3), (stride, stride))(x)))
                y = norm()(Conv(width, (3, 3))(y))
                x = x[:, ::stride, ::stride]
                x = nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1]))))
        return nn.Dense(10)(x.mean((1, 2)))


class PreActResNet(nn.Module):
    """The bottleneck network of He et al. 2016, with `n` blocks per stage."""

    n: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = Conv(16, (3, 3))(x)
        for width, stage in ((16, 0), (32, 1), (64, 2)):
            for block in range(self.n):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(x))
                if block == 0:
                    x = Conv(4 * width, (1, 1), (stride, stride))(y)
                y = nn.relu(norm()(Conv(width, (1, 1))(y)))
                y = nn.relu(norm()(Conv(width, (3, 3), (stride, stride))(y)))
                x = x + Conv(4 * width, (1, 1))(y)
        return nn.Dense(10)(nn.relu(norm()(x)).mean((1, 2)))


class WideResNet(nn.Module):
    """The wide residual network of Zagoruyko and Komodakis 2016, with `n` blocks per stage and widening factor `k`."""

    n: int
    k: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = Conv(16, (3, 3))(x)
        for width, stage in ((16 * self.k, 0), (32 * self.k, 1), (64 * self.k, 2)):
            for block in range(self.n):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(x))
                if block == 0:
                    x = Conv(width, (1, 1), (stride, stride))(y)
                y = nn.relu(norm()(Conv(width, (3, 3), (stride, stride))(y)))
                x = x + Conv(width, (3, 3))(y)
        return nn.Dense(10)(nn.relu(norm()(x)).mean((1, 2)))


class DenseNetBC(nn.Module):
    """DenseNet-BC of Huang et al. 2017, with `n` layers per block and growth rate `k`."""

    n: int
    k: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = Conv(2 * self.k, (3, 3))(x)
        for block in range(3):
            for _ in range(self.n):
                y = Conv(4 * self.k, (1, 1))(nn.relu(norm()(x)))
                x = jnp.concatenate([x, Conv(self.k, (3, 3))(nn.relu(norm()(y)))], axis=-1)
            if block < 2:
                x = nn.avg_pool(Conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x))), (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(norm()(x)).mean((1, 2)))


#: Networks by their names in the zoo.
NETS: dict[str, Any] = {
    "mlp": MLP(),
    "lenet": LeNet(),
    "mnist_cnn": SimpleCNN(),
    "cifar_cnn": SimpleCNN(),
    "resnet20": ResNet(3),
    "mobilenet_v2_cifar": MobileNetV2(),
    "resnet110": ResNet(18),
    "preact_resnet164": PreActResNet(18),
    "preact_resnet1001": PreActResNet(111),
    "wrn_28_10": WideResNet(4, 10),
    "densenet_bc_190_40": DenseNetBC(31, 40),
}
