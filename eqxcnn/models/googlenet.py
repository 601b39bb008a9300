"""GoogLeNet, or Inception v1: parallel convolutions of several sizes (Szegedy et al. 2015, "Going deeper with
convolutions"), in torchvision's form."""

from functools import partial
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import ConvNorm, Dropout, MaxPool, global_avg_pool, make_linear
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["GoogLeNet", "Inception", "Widths", "variants"]

#: Torchvision truncates at 2, which is 200 standard deviations and has no effect.
_INIT = normal(0.01)
_conv_norm = partial(ConvNorm, weight_init=_INIT, eps=1e-3)

#: Output channels of the convolutions of one module: 1x1; 1x1 and 3x3; 1x1 and "5x5"; 1x1 after pooling.
Widths: TypeAlias = tuple[int, tuple[int, int], tuple[int, int], int]

#: Widths of the modules at each resolution (table 1).
_STAGES: tuple[tuple[Widths, ...], ...] = (
    (
        (64, (96, 128), (16, 32), 32),
        (128, (128, 192), (32, 96), 64),
    ),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    (
        (256, (160, 320), (32, 128), 128),
        (384, (192, 384), (48, 128), 128),
    ),
)


class Inception(eqx.Module):
    """Four parallel branches, one of them with 3x3 max pooling, concatenated along channels (figure 2b).

    **Arguments:**

    - `widths`: output channels of the convolutions of each branch, see `Widths`.
    """

    branch1: ConvNorm
    branch2: tuple[ConvNorm, ConvNorm]
    branch3: tuple[ConvNorm, ConvNorm]
    branch4: tuple[MaxPool, ConvNorm]

    def __init__(self, in_channels: int, widths: Widths, *, key: Key):
        keys = jax.random.split(key, 6)
        first, (reduced2, second), (reduced3, third), fourth = widths
        self.branch1 = _conv_norm(in_channels, first, 1, key=keys[0])
        self.branch2 = (
            _conv_norm(in_channels, reduced2, 1, key=keys[1]),
            _conv_norm(reduced2, second, 3, key=keys[2]),
        )
        # The paper has a 5x5 kernel here; torchvision's weights are for 3x3.
        self.branch3 = (
            _conv_norm(in_channels, reduced3, 1, key=keys[3]),
            _conv_norm(reduced3, third, 3, key=keys[4]),
        )
        self.branch4 = MaxPool(3, 1, 1), _conv_norm(in_channels, fourth, 1, key=keys[5])

    def __call__(self, x: Image, state: eqx.nn.State) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
        """Returns the maps of the four branches, concatenated along channels, and the new state."""
        first, state = self.branch1(x, state)
        second, state = _apply_in_sequence(self.branch2, x, state)
        third, state = _apply_in_sequence(self.branch3, x, state)
        pool, conv = self.branch4
        fourth, state = conv(pool(x), state)
        return jnp.concatenate((first, second, third, fourth), axis=-1), state


class GoogLeNet(eqx.Module):
    """Three convolutions and nine `Inception` modules (table 1), without the two auxiliary classifiers.

    As in torchvision: BatchNorm after each convolution, 3x3 kernels instead of 5x5, and a dropout rate of 0.2 (paper:
    0.4). Initial weights are normal with standard deviation 0.01. Torchvision's trained weights expect images
    normalized with mean 0.5 and standard deviation 0.5 per channel.
    """

    conv1: ConvNorm
    conv2: ConvNorm
    conv3: ConvNorm
    inception3: tuple[Inception, ...]
    inception4: tuple[Inception, ...]
    inception5: tuple[Inception, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    pool: MaxPool
    last_pool: MaxPool

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 7)
        self.conv1 = _conv_norm(in_channels, 64, 7, 2, key=keys[0])
        self.conv2 = _conv_norm(64, 64, 1, key=keys[1])
        self.conv3 = _conv_norm(64, 192, 3, key=keys[2])
        self.inception3, channels = _make_stage(192, _STAGES[0], key=keys[3])
        self.inception4, channels = _make_stage(channels, _STAGES[1], key=keys[4])
        self.inception5, channels = _make_stage(channels, _STAGES[2], key=keys[5])
        self.head = make_linear(channels, num_classes, _INIT, key=keys[6]) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.pool = MaxPool(3, 2, ceil_mode=True)
        self.last_pool = MaxPool(2, 2, ceil_mode=True)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution: the outputs of convolutions 1 and 3, and of each module stage."""
        first, state = self.conv1(image, state)  # h/2 w/2 64
        second, state = _apply_in_sequence((self.conv2, self.conv3), self.pool(first), state)  # h/4 w/4 192
        third, state = _apply_in_sequence(self.inception3, self.pool(second), state)  # h/8 w/8 480
        fourth, state = _apply_in_sequence(self.inception4, self.pool(third), state)  # h/16 w/16 832
        fifth, state = _apply_in_sequence(self.inception5, self.last_pool(fourth), state)  # h/32 w/32 1024
        return (first, second, third, fourth, fifth), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _make_stage(in_channels: int, rows: tuple[Widths, ...], *, key: Key) -> tuple[tuple[Inception, ...], int]:
    """Makes the modules of a stage; also returns the output channels of the last module."""
    modules, channels = [], in_channels
    for row, module_key in zip(rows, jax.random.split(key, len(rows)), strict=True):
        modules.append(Inception(channels, row, key=module_key))
        first, (_, second), (_, third), fourth = row
        channels = first + second + third + fourth
    return tuple(modules), channels


def _apply_in_sequence(
    layers: tuple[ConvNorm | Inception, ...], x: Image, state: eqx.nn.State
) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
    for layer in layers:
        x, state = layer(x, state)
    return x, state


variants = {
    "googlenet": Variant(
        make=GoogLeNet,
        input=(224, 224, 3),
        num_classes=1000,
        params=6_624_904,
        source="https://arxiv.org/abs/1409.4842",
        task="imagenet",
        smallest=15,
        strides=(2, 4, 8, 16, 32),
        recipe="googlenet_catsdogs",
        torch_twin="googlenet",
    ),
}
