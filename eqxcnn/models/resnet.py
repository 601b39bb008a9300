"""Residual networks (He et al. 2015) with their aggregated (Xie et al. 2016) and wide forms, as torchvision's."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling
from jaxtyping import Array, Float

from ..layers import BatchNorm, Conv, ConvNorm, Dropout, DropPath, MaxPool, drop_path_rates, global_avg_pool, keys_for
from ..types import Classifier, Image, Key, Logits, Maps, Variant

Resized: TypeAlias = Float[Array, "h2 w2 o"]
FAN_OUT = variance_scaling(2.0, "fan_out", "normal")


def plain_conv(n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1, *, key: Key) -> Conv:
    """A convolution that pads symmetrically and leaves the bias to the BatchNorm behind it."""
    return Conv(n_in, n_out, size, stride, size // 2, groups=groups, use_bias=False, weight_init=FAN_OUT, key=key)


def projection(n_in: int, n_out: int, stride: int, *, key: Key) -> ConvNorm | None:
    """The shortcut where the shape changes: a 1x1 convolution and BatchNorm (He et al. 2015, section 3.3, B)."""
    if stride == 1 and n_in == n_out:
        return None
    return ConvNorm(n_in, n_out, 1, stride, activation=None, weight_init=FAN_OUT, key=key)


def last_norm(channels: int, zero: bool) -> BatchNorm:
    """The BatchNorm that ends a branch; with a zero weight, the block starts as its shortcut alone."""
    norm = BatchNorm(channels)
    return eqx.tree_at(lambda each: each.weight, norm, jnp.zeros(channels)) if zero else norm


class BasicBlock(eqx.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, figure 5, left).

    **Arguments:**

    - `in_channels`, `width`: channels of the input and of all else.
    - `stride`: of the first convolution and the shortcut.
    - `drop_path_rate`: how often training drops the branch.
    - `zero_init`: whether the last BatchNorm's weight starts at zero.
    """

    conv1: Conv
    bn1: BatchNorm
    conv2: Conv
    bn2: BatchNorm
    downsample: ConvNorm | None
    drop_path: DropPath
    out_channels: int = eqx.field(static=True)

    def __init__(
        self, in_channels: int, width: int, stride: int, drop_path_rate: float, zero_init: bool = False, *, key: Key
    ):
        keys = jax.random.split(key, 3)
        self.conv1 = plain_conv(in_channels, width, 3, stride, key=keys[0])
        self.bn1 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=keys[1])
        self.bn2 = last_norm(width, zero_init)
        self.downsample = projection(in_channels, width, stride, key=keys[2])
        self.drop_path = DropPath(drop_path_rate)
        self.out_channels = width

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """The maps `[h/stride w/stride width]`."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state


class Bottleneck(eqx.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al. 2015, figure 5, right), the 3x3 one with the stride.

    **Arguments:**

    - `in_channels`: channels of the input; those of the output are `4 * width`.
    - `stride`, `drop_path_rate`, `zero_init`: as for `BasicBlock`.
    - `groups`, `base_width`: the 3x3 convolution has `groups` groups of `width * base_width / 64` channels
      (Xie et al. 2016, table 1: cardinality `C` and width `d`).
    """

    conv1: Conv
    bn1: BatchNorm
    conv2: Conv
    bn2: BatchNorm
    conv3: Conv
    bn3: BatchNorm
    downsample: ConvNorm | None
    drop_path: DropPath
    out_channels: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        drop_path_rate: float,
        zero_init: bool = False,
        groups: int = 1,
        base_width: int = 64,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 4)
        inner, outer = width * base_width // 64 * groups, 4 * width
        self.conv1 = plain_conv(in_channels, inner, 1, key=keys[0])
        self.bn1 = BatchNorm(inner)
        self.conv2 = plain_conv(inner, inner, 3, stride, groups, key=keys[1])
        self.bn2 = BatchNorm(inner)
        self.conv3 = plain_conv(inner, outer, 1, key=keys[2])
        self.bn3 = last_norm(outer, zero_init)
        self.downsample = projection(in_channels, outer, stride, key=keys[3])
        self.drop_path = DropPath(drop_path_rate)
        self.out_channels = outer

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """The maps `[h/stride w/stride 4*width]`."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        out, state = self.bn3(self.conv3(jax.nn.relu(out)), state)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state


def make_layers(
    make: Callable[..., Any], n_in: int, widths: Sequence[int], depths: Sequence[int], rate: float | int, *, key: Key
) -> tuple[tuple[Any, ...], ...]:
    """`depths[i]` blocks of `widths[i]` for each stage `i`; each stage but the first opens with stride 2."""
    rates, keys = iter(drop_path_rates(rate, sum(depths))), iter(jax.random.split(key, sum(depths)))
    layers = []
    for width, depth in zip(widths, depths, strict=True):
        blocks = []
        for at in range(depth):
            blocks.append(make(n_in, width, 2 if layers and at == 0 else 1, next(rates), key=next(keys)))
            n_in = blocks[-1].out_channels
        layers.append(tuple(blocks))
    return tuple(layers)


def run_layers(
    layers: Sequence[Sequence[Any]], x: Image, state: eqx.nn.State, *, key: Key | None
) -> tuple[Maps, eqx.nn.State]:
    """The map behind each stage."""
    maps, keys = (), iter(keys_for(key, sum(map(len, layers))))
    for layer in layers:
        for block in layer:
            x, state = block(x, state, key=next(keys))
        maps += (x,)
    return maps, state


class ResNet(Classifier):
    """A stem, four stages of residual blocks and a dense head (He et al. 2015, table 1).

    Convolutions start normal with He's variance by fan-out, the head as torch's.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, drop_path_rate, zero_init, key=)` makes a block.
    - `depths`: blocks of each stage, of width 64, 128, 256 and 512.
    - `use_small_stem`: a 3x3 convolution with stride 1 and no pooling, for small images.
    - `zero_init_residual`: whether each branch starts as zero (Goyal et al. 2017, section 5.1).
    """

    conv1: Conv
    bn1: BatchNorm
    layer1: tuple[BasicBlock | Bottleneck, ...]
    layer2: tuple[BasicBlock | Bottleneck, ...]
    layer3: tuple[BasicBlock | Bottleneck, ...]
    layer4: tuple[BasicBlock | Bottleneck, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    pool: MaxPool | None
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        block: Callable[..., BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        use_small_stem: bool = False,
        zero_init_residual: bool = False,
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, key, head_key = jax.random.split(key, 3)
        self.conv1 = plain_conv(in_channels, 64, *((3, 1) if use_small_stem else (7, 2)), key=stem_key)
        self.bn1 = BatchNorm(64)
        self.pool = None if use_small_stem else MaxPool(3, 2, padding=1)
        make = partial(block, zero_init=zero_init_residual)
        layers = make_layers(make, 64, (64, 128, 256, 512), depths, drop_path_rate, key=key)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        width = self.layer4[-1].out_channels
        self.head = eqx.nn.Linear(width, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.is_random = dropout_rate > 0 or drop_path_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The map behind each of the four stages."""
        x, state = self.bn1(self.conv1(image), state)
        x = jax.nn.relu(x) if self.pool is None else self.pool(jax.nn.relu(x))  # h/4 w/4 64 with the pool
        layers = self.layer1, self.layer2, self.layer3, self.layer4
        return run_layers(layers, x, state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its pooled features."""
        first, last = keys_for(key, 2, used=self.is_random)
        maps, state = self.features(image, state, key=first)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=last)), state


_KAIMING, _XIE, _ZAGORUYKO = (f"https://arxiv.org/abs/{paper}" for paper in ("1512.03385", "1611.05431", "1605.07146"))
_KUANGLIU = "https://github.com/kuangliu/pytorch-cifar"
_ROWS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 11_689_512, _KAIMING),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 21_797_672, _KAIMING),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 25_557_032, _KAIMING),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 44_549_160, _KAIMING),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 60_192_808, _KAIMING),
    "resnext50_32x4d": (partial(Bottleneck, groups=32, base_width=4), (3, 4, 6, 3), 25_028_904, _XIE),
    "resnext101_32x8d": (partial(Bottleneck, groups=32, base_width=8), (3, 4, 23, 3), 88_791_336, _XIE),
    "resnext101_64x4d": (partial(Bottleneck, groups=64, base_width=4), (3, 4, 23, 3), 83_455_272, _XIE),
    "wide_resnet50_2": (partial(Bottleneck, base_width=128), (3, 4, 6, 3), 68_883_240, _ZAGORUYKO),
    "wide_resnet101_2": (partial(Bottleneck, base_width=128), (3, 4, 23, 3), 126_886_696, _ZAGORUYKO),
}
_SMALL_ROWS = {
    "resnet18_cifar": (BasicBlock, (2, 2, 2, 2), 11_173_962),
    "resnet34_cifar": (BasicBlock, (3, 4, 6, 3), 21_282_122),
    "resnet50_cifar": (Bottleneck, (3, 4, 6, 3), 23_520_842),
}
_imagenet = partial(Variant, input=(224, 224, 3), num_classes=1000, task="imagenet", strides=(4, 8, 16, 32))
_cifar = partial(Variant, input=(32, 32, 3), num_classes=10, task="cifar", strides=(1, 2, 4, 8))
variants = {
    name: _imagenet(make=partial(ResNet, block=block, depths=depths), params=params, source=source, torch_twin=name)
    for name, (block, depths, params, source) in _ROWS.items()
} | {
    name: _cifar(make=partial(ResNet, block=block, depths=depths, use_small_stem=True), params=params, source=_KUANGLIU)
    for name, (block, depths, params) in _SMALL_ROWS.items()
}
