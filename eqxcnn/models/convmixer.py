"""ConvMixer: patches and nothing but convolutions (Trockman and Kolter 2022, https://arxiv.org/abs/2201.09792)."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
from jaxtyping import Array

from ..layers import BatchNorm, Conv, Dropout, Linear, global_avg_pool
from ..layers.initializers import torch_uniform
from ..types import Classifier, Image, Key, Logits, Maps, Variant

#: Torch's own, uniform within `1 / sqrt(fan_in)`.
_INIT = torch_uniform
_gelu = partial(jax.nn.gelu, approximate=False)


class MixerBlock(eqx.Module):
    """A residual depthwise convolution mixes positions, then a 1x1 convolution mixes channels (section 2).

    **Arguments:**

    - `channels`: before and after.
    - `kernel_size`: of the depthwise convolution; an even one reaches one pixel further down and right.
    - `activation`: before each BatchNorm.
    """

    depthwise: Conv
    norm1: BatchNorm
    pointwise: Conv
    norm2: BatchNorm
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, channels: int, kernel_size: int, activation: Callable[[Array], Array], *, key: Key):
        first, second = jax.random.split(key)
        self.depthwise = Conv(channels, channels, kernel_size, groups=channels, weight_init=_INIT, key=first)
        self.norm1 = BatchNorm(channels)
        self.pointwise = Conv(channels, channels, 1, weight_init=_INIT, key=second)
        self.norm2 = BatchNorm(channels)
        self.activation = activation

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Image, eqx.nn.State]:
        """The maps `[h w channels]`."""
        mixed, state = self.norm1(self.activation(self.depthwise(image)), state)
        return self.norm2(self.activation(self.pointwise(image + mixed)), state)


class ConvMixer(Classifier):
    """Patches, then blocks of one width and resolution throughout (Trockman and Kolter 2022, section 2).

    First kernels are uniform within `1 / sqrt(fan_in)`, as torch's, biases of convolutions zero.

    **Arguments:**

    - `channels`, `depth`: the width, and the number of blocks.
    - `kernel_size`: of the depthwise convolutions.
    - `patch_size`: how many pixels high and wide each patch is.
    - `activation`: before each BatchNorm; the exact GELU unless told otherwise.
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
            in_channels, channels, patch_size, patch_size, padding="VALID", weight_init=_INIT, key=stem_key
        )
        self.stem_norm = BatchNorm(channels)
        self.blocks = tuple(MixerBlock(channels, kernel_size, activation, key=each) for each in keys)
        self.dropout = Dropout(dropout_rate)
        self.head = Linear(channels, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.activation = activation

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The map behind the last block; all have the same resolution."""
        x, state = self.stem_norm(self.activation(self.stem(image)), state)  # h/patch_size w/patch_size channels
        for block in self.blocks:
            x, state = block(x, state)
        return (x,), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its pooled features `[channels]`."""
        (x,), state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(x), key=key)), state


# Channels, blocks, kernel, patch, activation, parameters; only the first was published with ReLU.
_ROWS = {
    "convmixer_768_32": (768, 32, 7, 7, jax.nn.relu, 21_110_248),
    "convmixer_1024_20_ks9_p14": (1024, 20, 9, 14, _gelu, 24_383_464),
    "convmixer_1536_20": (1536, 20, 9, 7, _gelu, 51_625_960),
}
variants = {
    name: Variant(
        make=partial(ConvMixer, channels, depth, kernel_size=kernel, patch_size=patch, activation=activation),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2201.09792",
        task="imagenet",
        smallest=patch,
        strides=(patch,),
        torch_twin=f"timm/{name}",
    )
    for name, (channels, depth, kernel, patch, activation, params) in _ROWS.items()
} | {
    "convmixer_256_8": Variant(
        make=partial(ConvMixer, 256, 8, kernel_size=5, patch_size=2),
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
