"""ConvMixer: only convolutions, on patches (Trockman and Kolter 2022, https://arxiv.org/abs/2201.09792)."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
from jaxtyping import Array

from ..layers import BatchNorm, Conv, Dropout, Linear, global_avg_pool
from ..layers.initializers import torch_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["ConvMixer", "MixerBlock", "variants"]

_gelu = partial(jax.nn.gelu, approximate=False)


class MixerBlock(eqx.Module):
    """A residual depthwise convolution that mixes positions, then a 1x1 convolution that mixes channels (section 2).

    **Arguments:**

    - `channels`: input and output channels.
    - `kernel_size`: kernel size of the depthwise convolution. An even kernel extends one pixel further to the bottom
      and right.
    - `activation`: applied before each BatchNorm.
    """

    depthwise: Conv
    norm1: BatchNorm
    pointwise: Conv
    norm2: BatchNorm
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, channels: int, kernel_size: int, activation: Callable[[Array], Array], *, key: Key):
        first, second = jax.random.split(key)
        self.depthwise = Conv(channels, channels, kernel_size, groups=channels, weight_init=torch_uniform, key=first)
        self.norm1 = BatchNorm(channels)
        self.pointwise = Conv(channels, channels, 1, weight_init=torch_uniform, key=second)
        self.norm2 = BatchNorm(channels)
        self.activation = activation

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Image, eqx.nn.State]:
        """Returns maps `[h w channels]` and the new state."""
        mixed, state = self.norm1(self.activation(self.depthwise(image)), state)
        return self.norm2(self.activation(self.pointwise(image + mixed)), state)


class ConvMixer(eqx.Module):
    """A patch embedding, then blocks that all have the same width and resolution (Trockman and Kolter 2022, section 2).

    Weights are initialized as in torch, uniform up to 1 / sqrt(fan_in); biases of convolutions start at zero.

    **Arguments:**

    - `channels`, `depth`: the width and the number of blocks.
    - `kernel_size`: kernel size of the depthwise convolutions.
    - `patch_size`: height and width of a patch in pixels.
    - `activation`: applied before each BatchNorm; the exact GELU by default.
    """

    stem: Conv
    stem_norm: BatchNorm
    blocks: tuple[MixerBlock, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        depth: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        kernel_size: int = 9,
        patch_size: int = 7,
        activation: Callable[[Array], Array] = _gelu,
        dropout_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, head_key, *keys = jax.random.split(key, 2 + depth)
        self.stem = Conv(
            in_channels, channels, patch_size, patch_size, padding="VALID", weight_init=torch_uniform, key=stem_key
        )
        self.stem_norm = BatchNorm(channels)
        self.blocks = tuple(MixerBlock(channels, kernel_size, activation, key=block_key) for block_key in keys)
        self.dropout = Dropout(dropout_rate)
        self.head = Linear(channels, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.activation = activation

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of the last block; all blocks have the same resolution."""
        x, state = self.stem_norm(self.activation(self.stem(image)), state)  # h/patch_size w/patch_size channels
        for block in self.blocks:
            x, state = block(x, state)
        return (x,), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        (x,), state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(x), key=key)), state


#: Channels, depth, kernel size, patch size, activation, parameters; only the first model was published with ReLU.
_ROWS = {
    "convmixer_768_32": (768, 32, 7, 7, jax.nn.relu, 21_110_248),
    "convmixer_1024_20_ks9_p14": (1024, 20, 9, 14, _gelu, 24_383_464),
    "convmixer_1536_20": (1536, 20, 9, 7, _gelu, 51_625_960),
}
variants = {
    name: Variant(
        make=partial(
            ConvMixer,
            channels=channels,
            depth=depth,
            kernel_size=kernel_size,
            patch_size=patch_size,
            activation=activation,
        ),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2201.09792",
        task="imagenet",
        smallest=patch_size,
        strides=(patch_size,),
        torch_twin=f"timm/{name}",
    )
    for name, (channels, depth, kernel_size, patch_size, activation, params) in _ROWS.items()
} | {
    "convmixer_256_8": Variant(
        make=partial(ConvMixer, channels=256, depth=8, kernel_size=5, patch_size=2),
        input=(32, 32, 3),
        num_classes=10,
        params=594_186,
        source="https://github.com/locuslab/convmixer-cifar10",
        task="cifar",
        smallest=2,
        strides=(2,),
        recipe="convmixer_256_8",
    )
}
