"""ShuffleNet V2: cheap networks whose cost was measured in seconds (Ma et al. 2018, https://arxiv.org/abs/1807.11164)."""

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
from ..types import Classifier, Image, Key, Logits, Maps, Variant

#: Torch's own, uniform within `1 / sqrt(fan_in)`, for convolutions and the dense layer.
_INIT = torch_uniform


class ShuffleUnit(eqx.Module):
    """Two branches, concatenated and interleaved channel by channel (section 3.2, figure 3c and d).

    **Arguments:**

    - `n_in`, `n_out`: channels before and after, the latter even.
    - `halve`: whether both branches see all channels and halve the map. Otherwise each gets half of the channels, and
      the first hands them on as they are.
    """

    branch1: tuple[ConvNorm, ...]
    branch2: tuple[ConvNorm, ...]
    halve: bool = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, halve: bool, *, key: Key):
        keys = jax.random.split(key, 5)
        half, stride = n_out // 2, 2 if halve else 1
        inner = n_in if halve else half
        self.branch1 = (_depthwise(n_in, stride, keys[0]), _pointwise(n_in, half, keys[1])) if halve else ()
        self.branch2 = (
            _pointwise(inner, half, keys[2]),
            _depthwise(half, stride, keys[3]),
            _pointwise(half, half, keys[4]),
        )
        self.halve = halve

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The maps `[h w n_out]`, or `[h/2 w/2 n_out]` of a unit that halves them."""
        left, right = (image, image) if self.halve else jnp.split(image, 2, axis=-1)
        for layer in self.branch1:
            left, state = layer(left, state)
        for layer in self.branch2:
            right, state = layer(right, state)
        both = jnp.concatenate([left, right], axis=-1)
        # Channels of the two branches alternate, so that the next unit's halves have seen both.
        return rearrange(both, "h w (branch c) -> h w (c branch)", branch=2), state


class ShuffleNetV2(Classifier):
    """Stages of shuffled units after a stem with pooling (Ma et al. 2018, table 5).

    First weights are uniform within `1 / sqrt(fan_in)`, as in torchvision.

    **Arguments:**

    - `widths`: channels of the stem, of each stage, and of the last 1x1 convolution.
    - `depths`: units in each stage, the first of which halves the map.
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
                f"`widths` (={widths}) must name the stem's channels, an even number for each stage of `depths` "
                f"(={depths}, at least 1 each), and those of the last convolution"
            )
        stem_key, last_key, head_key, *keys = jax.random.split(key, 3 + len(depths))
        self.conv1 = ConvNorm(in_channels, widths[0], 3, 2, weight_init=_INIT, key=stem_key)
        self.pool = MaxPool(3, 2, 1)
        stages = zip(pairwise(widths[:-1]), depths, keys, strict=True)
        self.stages = tuple(_stage(n_in, n_out, depth, each) for (n_in, n_out), depth, each in stages)
        self.conv5 = _pointwise(widths[-2], widths[-1], last_key)
        self.dropout = Dropout(dropout_rate)
        self.head = Linear(widths[-1], num_classes, key=head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The maps behind the stem, its pooling, each stage but the last, and the last 1x1 convolution."""
        x, state = self.conv1(image, state)  # h/2 w/2 widths[0]
        maps, x = (x,), self.pool(x)  # h/4 w/4
        for units in self.stages:
            maps += (x,)
            for unit in units:
                x, state = unit(x, state)  # the first unit: h/2 w/2
        x, state = self.conv5(x, state)
        return (*maps, x), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its pooled features `[widths[-1]]`."""
        maps, state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _stage(n_in: int, n_out: int, depth: int, key: Key) -> tuple[ShuffleUnit, ...]:
    keys = jax.random.split(key, depth)
    return tuple(
        ShuffleUnit(n_out if index else n_in, n_out, halve=index == 0, key=each) for index, each in enumerate(keys)
    )


def _pointwise(n_in: int, n_out: int, key: Key) -> ConvNorm:
    return ConvNorm(n_in, n_out, 1, weight_init=_INIT, key=key)


def _depthwise(channels: int, stride: int, key: Key) -> ConvNorm:
    return ConvNorm(channels, channels, 3, stride, activation=None, groups=channels, weight_init=_INIT, key=key)


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
