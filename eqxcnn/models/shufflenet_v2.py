"""ShuffleNet V2: networks designed for measured speed instead of multiply-adds (Ma et al. 2018).

https://arxiv.org/abs/1807.11164
"""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import ConvNorm, Dropout, Linear, MaxPool, global_avg_pool
from ..layers.initializers import torch_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["ShuffleNetV2", "ShuffleUnit", "variants"]


class ShuffleUnit(eqx.Module):
    """Two branches whose output channels are interleaved (section 3.2, figure 3c and d).

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input and the output; `out_channels` must be even.
    - `is_strided`: whether both branches take all channels, with stride 2. Otherwise each branch takes half of the
      channels, and the first branch is the identity.
    """

    branch1: tuple[ConvNorm, ...]
    branch2: tuple[ConvNorm, ...]
    is_strided: bool = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, is_strided: bool, *, key: Key):
        keys = jax.random.split(key, 5)
        half, stride = out_channels // 2, 2 if is_strided else 1
        if is_strided:
            self.branch1 = (_make_depthwise(in_channels, stride, keys[0]), _make_pointwise(in_channels, half, keys[1]))
        else:
            self.branch1 = ()
        self.branch2 = (
            _make_pointwise(in_channels if is_strided else half, half, keys[2]),
            _make_depthwise(half, stride, keys[3]),
            _make_pointwise(half, half, keys[4]),
        )
        self.is_strided = is_strided

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns maps `[h w out_channels]`, or `[h/2 w/2 out_channels]` if strided, and the new state."""
        left, right = (image, image) if self.is_strided else jnp.split(image, 2, axis=-1)
        for layer in self.branch1:
            left, state = layer(left, state)
        for layer in self.branch2:
            right, state = layer(right, state)
        both = jnp.concatenate([left, right], axis=-1)
        # The next unit splits the channels in two; since they are interleaved, each half has channels of both branches.
        return rearrange(both, "h w (branch c) -> h w (c branch)", branch=2), state


class ShuffleNetV2(eqx.Module):
    """A stem with pooling, stages of `ShuffleUnit`, and a last 1x1 convolution (Ma et al. 2018, table 5).

    Initial weights are uniform up to 1 / sqrt(fan_in), as in torchvision.

    **Arguments:**

    - `widths`: channels of the stem, of each stage, and of the last 1x1 convolution.
    - `depths`: number of units of each stage; the first unit has stride 2.

    **Raises:** `InputError` if `widths` and `depths` do not match, or a stage has no unit or an odd width.
    """

    conv1: ConvNorm
    stages: tuple[tuple[ShuffleUnit, ...], ...]
    conv5: ConvNorm
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool
    dropout: Dropout

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        widths: tuple[int, ...] = (24, 116, 232, 464, 1024),
        depths: tuple[int, ...] = (4, 8, 4),
        dropout_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        if len(widths) != len(depths) + 2 or min(depths, default=0) < 1 or any(width % 2 for width in widths[1:-1]):
            raise InputError(
                f"`widths` (={widths}) must have the stem's channels, then one even number per stage, then the "
                f"last convolution's channels; `depths` (={depths}) must have one number above 0 per stage"
            )
        stem_key, last_key, head_key, *keys = jax.random.split(key, 3 + len(depths))
        self.conv1 = ConvNorm(in_channels, widths[0], 3, 2, weight_init=torch_uniform, key=stem_key)
        self.pool = MaxPool(3, 2, 1)
        stages = zip(pairwise(widths[:-1]), depths, keys, strict=True)
        self.stages = tuple(_make_stage(n_in, n_out, depth, stage_key) for (n_in, n_out), depth, stage_key in stages)
        self.conv5 = _make_pointwise(widths[-2], widths[-1], last_key)
        self.dropout = Dropout(dropout_rate)
        self.head = Linear(widths[-1], num_classes, key=head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the outputs of the stem, its pooling, each stage but the last, and the last 1x1 convolution."""
        x, state = self.conv1(image, state)  # h/2 w/2 widths[0]
        maps, x = (x,), self.pool(x)  # h/4 w/4
        for units in self.stages:
            maps += (x,)
            for unit in units:
                x, state = unit(x, state)  # the first unit of a stage halves h and w
        x, state = self.conv5(x, state)
        return (*maps, x), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _make_stage(in_channels: int, out_channels: int, depth: int, key: Key) -> tuple[ShuffleUnit, ...]:
    first, *rest = jax.random.split(key, depth)
    return (
        ShuffleUnit(in_channels, out_channels, is_strided=True, key=first),
        *(ShuffleUnit(out_channels, out_channels, is_strided=False, key=unit_key) for unit_key in rest),
    )


def _make_pointwise(in_channels: int, out_channels: int, key: Key) -> ConvNorm:
    return ConvNorm(in_channels, out_channels, 1, weight_init=torch_uniform, key=key)


def _make_depthwise(channels: int, stride: int, key: Key) -> ConvNorm:
    return ConvNorm(channels, channels, 3, stride, activation=None, groups=channels, weight_init=torch_uniform, key=key)


_ROWS = {
    "shufflenet_v2_x0_5": ((24, 48, 96, 192, 1024), 1_366_792),
    "shufflenet_v2_x1_0": ((24, 116, 232, 464, 1024), 2_278_604),
    "shufflenet_v2_x1_5": ((24, 176, 352, 704, 1024), 3_503_624),
    "shufflenet_v2_x2_0": ((24, 244, 488, 976, 2048), 7_393_996),
}
variants = {
    name: Variant(
        make=partial(ShuffleNetV2, widths=widths),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/1807.11164",
        task="imagenet",
        smallest=1,
        strides=(2, 4, 8, 16, 32),
        recipe="shufflenet_v2_x0_5_catsdogs" if name == "shufflenet_v2_x0_5" else None,
        torch_twin=name,
    )
    for name, (widths, params) in _ROWS.items()
}
