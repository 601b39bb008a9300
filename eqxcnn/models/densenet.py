"""DenseNet: each layer takes the outputs of all earlier layers of its block (Huang et al. 2017, "Densely connected
convolutional networks")."""

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import AvgPool, BatchNorm, Conv, Dropout, MaxPool, global_avg_pool, keys_for, make_linear
from ..layers.initializers import he_normal_fan_in, torch_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["DenseLayer", "DenseNet", "NormConv", "variants"]


class NormConv(eqx.Module):
    """BatchNorm, ReLU, a convolution and dropout: the paper's composite function (section 3)."""

    norm: BatchNorm
    conv: Conv
    dropout: Dropout

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout_rate: float | int, *, key: Key):
        edge = kernel_size // 2
        self.norm = BatchNorm(in_channels)
        self.conv = Conv(
            in_channels, out_channels, kernel_size, padding=edge, use_bias=False, weight_init=he_normal_fan_in, key=key
        )
        self.dropout = Dropout(dropout_rate)

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
        """Returns maps `[h w out_channels]` and the new state."""
        x, state = self.norm(x, state)
        return self.dropout(self.conv(jax.nn.relu(x)), key=key), state


#: A layer, which adds `growth_rate` maps: a 3x3 convolution, after a 1x1 convolution in networks with bottlenecks.
DenseLayer: TypeAlias = tuple[NormConv, ...]


class DenseNet(eqx.Module):
    """Blocks of densely connected layers, with a 1x1 convolution and 2x2 average pooling between blocks (section 3).

    Convolutions are initialized with He normal values, as in torchvision. Dropout follows every convolution but the
    first (section 4.2).

    **Arguments:**

    - `layers`: number of layers of each block.
    - `growth_rate`: number of maps that each layer adds (`k`).
    - `stem_channels`: channels of the first convolution.
    - `bottleneck`: output channels of each layer's 1x1 convolution, as a multiple of `growth_rate`; 0 for none.
    - `compression`: fraction of the maps that the 1x1 convolution between blocks keeps (theta).
    - `small_images`: the CIFAR variant, with a 3x3 convolution and no pooling before the first block. The ImageNet
      variant has a 7x7 convolution with stride 2, BatchNorm, ReLU and 3x3 max pooling.

    **Raises:** `InputError` if a block has no layer, or `compression` is not in (0, 1].
    """

    conv0: Conv
    norm0: BatchNorm | None
    blocks: tuple[tuple[DenseLayer, ...], ...]
    transitions: tuple[NormConv, ...]
    norm5: BatchNorm
    head: eqx.nn.Linear | eqx.nn.Identity
    stem_pool: MaxPool
    pool: AvgPool

    def __init__(
        self,
        layers: tuple[int, ...],
        growth_rate: int,
        stem_channels: int,
        bottleneck: int = 4,
        compression: float | int = 0.5,
        small_images: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0,
        *,
        key: Key,
    ):
        _check_arguments(layers, compression)
        stem_key, head_key, *keys = jax.random.split(key, 2 + 2 * len(layers))
        conv = partial(Conv, in_channels, stem_channels, use_bias=False, weight_init=he_normal_fan_in, key=stem_key)
        self.conv0 = conv(3, padding=1) if small_images else conv(7, 2, 3)
        self.norm0 = None if small_images else BatchNorm(stem_channels)
        channels, blocks, transitions = stem_channels, [], []
        for index, count in enumerate(layers):
            widths = range(channels, channels + count * growth_rate, growth_rate)
            blocks.append(
                tuple(
                    _make_layer(width, growth_rate, bottleneck, dropout_rate, key=layer_key)
                    for width, layer_key in zip(widths, jax.random.split(keys[2 * index], count), strict=True)
                )
            )
            channels += count * growth_rate
            if index < len(layers) - 1:
                compressed = int(channels * compression)
                transitions.append(NormConv(channels, compressed, 1, dropout_rate, key=keys[2 * index + 1]))
                channels = compressed
        self.blocks, self.transitions = tuple(blocks), tuple(transitions)
        self.norm5 = BatchNorm(channels)
        self.head = (
            make_linear(channels, num_classes, torch_uniform, key=head_key) if num_classes else eqx.nn.Identity()
        )
        self.stem_pool = MaxPool(3, 2, 1)
        self.pool = AvgPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each block; BatchNorm and ReLU are applied to the last output."""
        keys = self._split_key(key)
        maps, x = (), self.conv0(image)  # h/2 w/2 stem_channels
        if self.norm0 is not None:
            x, state = self.norm0(x, state)
            x = self.stem_pool(jax.nn.relu(x))  # h/4 w/4
        for block, transition in zip_longest(self.blocks, self.transitions):
            x, state = _apply_block(block, x, state, keys)
            if transition is not None:
                maps += (x,)
                x, state = transition(x, state, key=next(keys))
                x = self.pool(x)
        x, state = self.norm5(x, state)
        return (*maps, jax.nn.relu(x)), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_avg_pool(maps[-1])), state

    def _split_key(self, key: Key | None) -> Iterator[Key | None]:
        """Returns one key per dropout, in call order."""
        units = [unit for block in self.blocks for layer in block for unit in layer] + list(self.transitions)
        dropout = units[0].dropout
        return iter(keys_for(key, len(units), used=dropout.p > 0 and not dropout.inference))


def _make_layer(
    in_channels: int, growth_rate: int, bottleneck: int, dropout_rate: float | int, *, key: Key
) -> DenseLayer:
    """Makes a layer that computes `growth_rate` new maps (section 3).

    Unless `bottleneck` is 0, the layer is what section 3 of the paper calls a "bottleneck layer".
    """
    if not bottleneck:
        return (NormConv(in_channels, growth_rate, 3, dropout_rate, key=key),)
    first, second = jax.random.split(key)
    hidden = bottleneck * growth_rate
    return (
        NormConv(in_channels, hidden, 1, dropout_rate, key=first),
        NormConv(hidden, growth_rate, 3, dropout_rate, key=second),
    )


def _apply_block(
    block: tuple[DenseLayer, ...], x: Image, state: eqx.nn.State, keys: Iterator[Key | None]
) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
    """Returns the block's input followed by the maps of each layer, and the new state."""
    maps = [x]
    for layer in block:
        new = jnp.concatenate(maps, axis=-1)
        for unit in layer:
            new, state = unit(new, state, key=next(keys))
        maps.append(new)
    return jnp.concatenate(maps, axis=-1), state


def _check_arguments(layers: tuple[int, ...], compression: float | int) -> None:
    if not layers or min(layers) < 1:
        raise InputError(f"`layers` (={layers}) must have at least one block, each of at least 1 layer")
    if not 0 < compression <= 1:
        raise InputError(f"`compression` (={compression}) must be greater than 0 and at most 1")


_PAPER = "https://arxiv.org/abs/1608.06993"
#: Layers of each block, growth rate, channels of the first convolution, parameters.
_IMAGENET = {
    "densenet121": ((6, 12, 24, 16), 32, 64, 7_978_856),
    "densenet161": ((6, 12, 36, 24), 48, 96, 28_681_000),
    "densenet169": ((6, 12, 32, 32), 32, 64, 14_149_480),
    "densenet201": ((6, 12, 48, 32), 32, 64, 20_013_928),
}
#: Layers of each of the three blocks, growth rate, whether to use bottlenecks and compression ("BC"), parameters.
_CIFAR = {
    "densenet_40_12": (12, 12, False, 1_019_722),
    "densenet_100_12": (32, 12, False, 6_979_642),
    "densenet_100_24": (32, 24, False, 27_249_082),
    "densenet_bc_100_12": (16, 12, True, 769_162),
    "densenet_bc_250_24": (41, 24, True, 15_324_406),
    "densenet_bc_190_40": (31, 40, True, 25_624_430),
}
variants = {
    name: Variant(
        make=partial(DenseNet, layers=layers, growth_rate=growth_rate, stem_channels=stem_channels),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source=_PAPER,
        task="imagenet",
        smallest=29,
        strides=(4, 8, 16, 32),
        torch_twin=name,
    )
    for name, (layers, growth_rate, stem_channels, params) in _IMAGENET.items()
} | {
    name: Variant(
        make=partial(
            DenseNet,
            layers=(count,) * 3,
            growth_rate=growth_rate,
            stem_channels=2 * growth_rate if is_bc else 16,
            bottleneck=4 if is_bc else 0,
            compression=0.5 if is_bc else 1,
            small_images=True,
        ),
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source=_PAPER,
        task="cifar",
        smallest=4,
        strides=(1, 2, 4),
        recipe=name if name in ("densenet_40_12", "densenet_bc_100_12") else None,
    )
    for name, (count, growth_rate, is_bc, params) in _CIFAR.items()
}
