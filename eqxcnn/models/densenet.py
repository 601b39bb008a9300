"""DenseNet: each layer sees the maps of all layers before it (Huang et al. 2017, "Densely connected convolutional
networks")."""

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
from ..types import Classifier, Image, Key, Logits, Maps, Variant

_HE_NORMAL = he_normal_fan_in
#: Torch's own for dense layers.
_UNIFORM = torch_uniform


class NormConv(eqx.Module):
    """BatchNorm, ReLU, a convolution and dropout: the composite function (section 3)."""

    norm: BatchNorm
    conv: Conv
    dropout: Dropout

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout_rate: float | int, *, key: Key):
        edge = kernel_size // 2
        self.norm = BatchNorm(in_channels)
        self.conv = Conv(
            in_channels, out_channels, kernel_size, padding=edge, use_bias=False, weight_init=_HE_NORMAL, key=key
        )
        self.dropout = Dropout(dropout_rate)

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
        """The maps `[h w out_channels]` and the new state."""
        x, state = self.norm(x, state)
        return self.dropout(self.conv(jax.nn.relu(x)), key=key), state


#: What makes `growth_rate` new maps of all maps so far: a 3x3 convolution, behind a 1x1 one if it has a bottleneck.
DenseLayer: TypeAlias = tuple[NormConv, ...]


class DenseNet(Classifier):
    """Blocks of densely connected layers, with a 1x1 convolution and 2x2 average pooling between two blocks.

    He normal kernels, as torchvision's. Dropout follows every convolution but the first (section 4.2).

    **Arguments:**

    - `layers`: how many layers each block has.
    - `growth_rate`: how many maps each layer adds (`k`).
    - `stem_channels`: of the first convolution.
    - `bottleneck`: how many times `growth_rate` the 1x1 convolution of each layer has; 0 for layers without one.
    - `compression`: the share of the maps that is left between two blocks (theta).
    - `small_images`: whether the first convolution is 3x3 and nothing is pooled before the first block, as for CIFAR;
      else it is 7x7 with stride 2, then BatchNorm, ReLU and 3x3 max pooling.
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
        _check(layers, compression)
        stem_key, head_key, *keys = jax.random.split(key, 2 + 2 * len(layers))
        conv = partial(Conv, in_channels, stem_channels, use_bias=False, weight_init=_HE_NORMAL, key=stem_key)
        self.conv0 = conv(3, padding=1) if small_images else conv(7, 2, 3)
        self.norm0 = None if small_images else BatchNorm(stem_channels)
        channels, blocks, transitions = stem_channels, [], []
        for index, count in enumerate(layers):
            widths = range(channels, channels + count * growth_rate, growth_rate)
            blocks.append(
                tuple(
                    _dense_layer(width, growth_rate, bottleneck, dropout_rate, key=each)
                    for width, each in zip(widths, jax.random.split(keys[2 * index], count), strict=True)
                )
            )
            channels += count * growth_rate
            if index < len(layers) - 1:
                left = int(channels * compression)
                transitions.append(NormConv(channels, left, 1, dropout_rate, key=keys[2 * index + 1]))
                channels = left
        self.blocks, self.transitions = tuple(blocks), tuple(transitions)
        self.norm5 = BatchNorm(channels)
        self.head = make_linear(channels, num_classes, _UNIFORM, key=head_key) if num_classes else eqx.nn.Identity()
        self.stem_pool = MaxPool(3, 2, 1)
        self.pool = AvgPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The maps of each block, those of the last one normalized and through ReLU."""
        keys = self._keys(key)
        maps, x = (), self.conv0(image)  # h/2 w/2 stem_channels
        if self.norm0 is not None:
            x, state = self.norm0(x, state)
            x = self.stem_pool(jax.nn.relu(x))  # h/4 w/4
        for block, transition in zip_longest(self.blocks, self.transitions):
            x, state = _dense_block(block, x, state, keys)
            if transition is not None:
                maps += (x,)
                x, state = transition(x, state, key=next(keys))
                x = self.pool(x)
        x, state = self.norm5(x, state)
        return (*maps, jax.nn.relu(x)), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or the means of its last maps."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_avg_pool(maps[-1])), state

    def _keys(self, key: Key | None) -> Iterator[Key | None]:
        """A key for each convolution that dropout follows, in the order of their use."""
        units = [unit for block in self.blocks for layer in block for unit in layer] + list(self.transitions)
        dropout = units[0].dropout
        return iter(keys_for(key, len(units), used=dropout.p > 0 and not dropout.inference))


def _dense_layer(channels: int, growth: int, bottleneck: int, dropout: float | int, *, key: Key) -> DenseLayer:
    """The `growth` maps that are added to `channels` ones (section 3, also "bottleneck layers")."""
    if not bottleneck:
        return (NormConv(channels, growth, 3, dropout, key=key),)
    first, second = jax.random.split(key)
    hidden = bottleneck * growth
    return NormConv(channels, hidden, 1, dropout, key=first), NormConv(hidden, growth, 3, dropout, key=second)


def _dense_block(
    block: tuple[DenseLayer, ...], x: Image, state: eqx.nn.State, keys: Iterator[Key | None]
) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
    """The block's input and, behind it, what each of its layers adds."""
    maps = [x]
    for layer in block:
        new = jnp.concatenate(maps, axis=-1)
        for unit in layer:
            new, state = unit(new, state, key=next(keys))
        maps.append(new)
    return jnp.concatenate(maps, axis=-1), state


def _check(layers: tuple[int, ...], compression: float | int) -> None:
    if not layers or min(layers) < 1:
        raise InputError(f"`layers` (={layers}) must name one block or more, each of at least 1 layer")
    if not 0 < compression <= 1:
        raise InputError(f"`compression` (={compression}) is the share of maps that is left: above 0 and at most 1")


_PAPER = "https://arxiv.org/abs/1608.06993"
#: Layers of each block, growth rate, channels of the first convolution; parameters.
_IMAGENET = {
    "densenet121": ((6, 12, 24, 16), 32, 64, 7_978_856),
    "densenet161": ((6, 12, 36, 24), 48, 96, 28_681_000),
    "densenet169": ((6, 12, 32, 32), 32, 64, 14_149_480),
    "densenet201": ((6, 12, 48, 32), 32, 64, 20_013_928),
}
#: Layers in each of three blocks, growth rate, whether with bottlenecks and compression ("BC"); parameters.
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
        make=partial(DenseNet, layers, growth_rate, stem_channels),
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
            (count,) * 3,
            growth_rate,
            2 * growth_rate if is_bc else 16,
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
