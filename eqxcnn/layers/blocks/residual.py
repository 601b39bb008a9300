"""The blocks of residual networks (He et al. 2015), and parts that related blocks share."""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...types import Image, Key
from ..conv import Conv
from ..drop_path import DropPath
from ..initializers import he_normal_fan_out
from ..norm import BatchNorm
from .conv_norm import ConvNorm

__all__ = ["BasicBlock", "Bottleneck", "Resized", "last_norm", "padded_identity", "plain_conv", "projection"]

Resized: TypeAlias = Float[Array, "h2 w2 o"]


def plain_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, key: Key
) -> Conv:
    """Builds a convolution with symmetric padding, and without bias, because the following BatchNorm adds a bias."""
    return Conv(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        groups=groups,
        use_bias=False,
        weight_init=he_normal_fan_out,
        key=key,
    )


def projection(in_channels: int, out_channels: int, stride: int, *, key: Key) -> ConvNorm | None:
    """Builds the shortcut of a block: a 1x1 convolution and BatchNorm (He et al. 2015, section 3.3, option B).

    Returns `None`, for the identity, if the block keeps its input's shape.
    """
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride, activation=None, weight_init=he_normal_fan_out, key=key)


def last_norm(channels: int, zero: bool) -> BatchNorm:
    """Builds the last BatchNorm of a branch; if `zero`, its weight starts at zero, and so does the branch's output."""
    norm = BatchNorm(channels)
    return eqx.tree_at(lambda norm: norm.weight, norm, jnp.zeros(channels)) if zero else norm


def padded_identity(x: Image, channels: int, stride: int) -> Resized:
    """Computes the shortcut without parameters: every `stride`-th pixel, and zeros for the added channels.

    Option A of He et al. 2015, section 3.3; the added channels come last.
    """
    return jnp.pad(x[::stride, ::stride], ((0, 0), (0, 0), (0, channels - x.shape[-1])))


class BasicBlock(eqx.Module):
    """Two 3x3 convolutions, plus a shortcut (He et al. 2015, figure 5, left).

    **Arguments:**

    - `in_channels`: the number of channels of the input.
    - `width`: the number of channels of both convolutions and of the output.
    - `stride`: the stride of the first convolution and of the shortcut.
    - `drop_path_rate`: the probability that training drops the branch of an example.
    - `zero_init`: whether the weight of the last BatchNorm starts at zero.
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
        """Returns the maps `[h/stride w/stride width]` and the new state."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state


class Bottleneck(eqx.Module):
    """1x1, 3x3 (strided) and 1x1 convolutions, plus a shortcut (He et al. 2015, figure 5, right).

    **Arguments:**

    - `in_channels`: the number of channels of the input; the output has `4 * width` channels.
    - `width`, `stride`, `drop_path_rate`, `zero_init`: as for `BasicBlock`.
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
        """Returns the maps `[h/stride w/stride 4*width]` and the new state."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        out, state = self.bn3(self.conv3(jax.nn.relu(out)), state)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state
