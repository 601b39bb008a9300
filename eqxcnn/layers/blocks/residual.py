"""The blocks of residual networks (He et al. 2015), and what other blocks of their kind are made of."""

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

Resized: TypeAlias = Float[Array, "h2 w2 o"]


def plain_conv(n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1, *, key: Key) -> Conv:
    """A convolution that pads symmetrically and leaves the bias to the BatchNorm behind it."""
    return Conv(
        n_in, n_out, size, stride, size // 2, groups=groups, use_bias=False, weight_init=he_normal_fan_out, key=key
    )


def projection(n_in: int, n_out: int, stride: int, *, key: Key) -> ConvNorm | None:
    """The shortcut where the shape changes: a 1x1 convolution and BatchNorm (He et al. 2015, section 3.3, B)."""
    if stride == 1 and n_in == n_out:
        return None
    return ConvNorm(n_in, n_out, 1, stride, activation=None, weight_init=he_normal_fan_out, key=key)


def last_norm(channels: int, zero: bool) -> BatchNorm:
    """The BatchNorm that ends a branch; with a zero weight, the block starts as its shortcut alone."""
    norm = BatchNorm(channels)
    return eqx.tree_at(lambda each: each.weight, norm, jnp.zeros(channels)) if zero else norm


def padded_identity(x: Image, channels: int, stride: int) -> Resized:
    """The shortcut without parameters: every `stride`-th pixel, and zeros for the new channels, which come last.

    Option A of He et al. 2015, section 3.3.
    """
    return jnp.pad(x[::stride, ::stride], ((0, 0), (0, 0), (0, channels - x.shape[-1])))


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
