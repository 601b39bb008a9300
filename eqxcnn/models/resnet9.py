"""ResNet-9 (Page 2018, "How to Train Your ResNet"): a shallow network made to train on CIFAR-10 in about a minute."""

import equinox as eqx
import jax

from ..layers import ConvNorm, Linear, MaxPool, global_max_pool
from ..layers.initializers import torch_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["ResNet9", "Residual", "variants"]


class Residual(eqx.Module):
    """Two convolutions with BatchNorm and ReLU, plus an identity shortcut that is added after the second ReLU."""

    conv1: ConvNorm
    conv2: ConvNorm

    def __init__(self, channels: int, *, key: Key):
        first, second = jax.random.split(key)
        self.conv1 = ConvNorm(channels, channels, weight_init=torch_uniform, key=first)
        self.conv2 = ConvNorm(channels, channels, weight_init=torch_uniform, key=second)

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Image, eqx.nn.State]:
        """Returns maps `[h w c]` and the new state."""
        x, state = self.conv1(image, state)
        x, state = self.conv2(x, state)
        return image + x, state


class ResNet9(eqx.Module):
    """Four convolutions, three of them with 2x2 max pooling; a residual block follows the second and the fourth
    convolution (Page 2018, DAWNBench submission, `dawn.py`).

    Global max pooling feeds a dense layer without bias; for a 32x32 image the last maps are 4x4. Weights are
    initialized as in torch, uniform up to 1 / sqrt(fan_in).

    **Arguments:**

    - `widths`: output channels of the four convolutions.
    - `score_scale`: factor on the output of the dense layer.
    """

    prep: ConvNorm
    layer1: ConvNorm
    residual1: Residual
    layer2: ConvNorm
    layer3: ConvNorm
    residual3: Residual
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool
    score_scale: float | int = eqx.field(static=True)

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        score_scale: float | int = 0.125,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 7)
        self.prep = ConvNorm(in_channels, widths[0], weight_init=torch_uniform, key=keys[0])
        self.layer1 = ConvNorm(widths[0], widths[1], weight_init=torch_uniform, key=keys[1])
        self.residual1 = Residual(widths[1], key=keys[2])
        self.layer2 = ConvNorm(widths[1], widths[2], weight_init=torch_uniform, key=keys[3])
        self.layer3 = ConvNorm(widths[2], widths[3], weight_init=torch_uniform, key=keys[4])
        self.residual3 = Residual(widths[3], key=keys[5])
        self.head = Linear(widths[3], num_classes, use_bias=False, key=keys[6]) if num_classes else eqx.nn.Identity()
        self.pool = MaxPool(2)
        self.score_scale = score_scale if num_classes else 1

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution, with 64, 128, 256 and 512 channels."""
        first, state = self.prep(image, state)
        x, state = self.layer1(first, state)
        second, state = self.residual1(self.pool(x), state)  # h/2 w/2 128
        x, state = self.layer2(second, state)
        third = self.pool(x)  # h/4 w/4 256
        x, state = self.layer3(third, state)
        fourth, state = self.residual3(self.pool(x), state)  # h/8 w/8 512
        return (first, second, third, fourth), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 512 features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_max_pool(maps[-1])) * self.score_scale, state


variants = {
    "resnet9": Variant(
        make=ResNet9,
        input=(32, 32, 3),
        num_classes=10,
        params=6_573_120,
        source="https://github.com/davidcpage/cifar10-fast/blob/master/dawn.py",
        task="cifar",
        smallest=8,
        strides=(1, 2, 4, 8),
        recipe="resnet9",
    ),
}
