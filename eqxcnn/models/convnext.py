"""ConvNeXt: a residual network modernized with ideas from transformers (Liu et al. 2022).

https://arxiv.org/abs/2201.03545
"""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import (
    Conv,
    Dropout,
    DropPath,
    LayerNorm,
    drop_path_rates,
    each_position,
    global_avg_pool,
    keys_for,
    make_linear,
)
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["ConvNeXt", "ConvNeXtBlock", "Downsample", "variants"]

#: The published code truncates at 100 standard deviations, which has no effect.
_INIT = normal(0.02)
_norm = partial(LayerNorm, eps=1e-6)


class ConvNeXtBlock(eqx.Module):
    """A 7x7 depthwise convolution, LayerNorm and a two-layer perceptron at each position (section 2, figure 4).

    **Arguments:**

    - `channels`: input and output channels; the hidden layer has four times as many.
    - `layer_scale`: initial value of the learned per-channel factor on the branch.
    - `drop_path_rate`: probability of dropping the branch in training.
    """

    conv: Conv
    norm: LayerNorm
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    layer_scale: Float[Array, " c"]
    drop_path: DropPath

    def __init__(self, channels: int, layer_scale: float | int, drop_path_rate: float | int, *, key: Key):
        keys = jax.random.split(key, 3)
        self.conv = Conv(channels, channels, 7, padding=3, groups=channels, weight_init=_INIT, key=keys[0])
        self.norm = _norm(channels)
        self.fc1 = make_linear(channels, 4 * channels, _INIT, key=keys[1])
        self.fc2 = make_linear(4 * channels, channels, _INIT, key=keys[2])
        self.layer_scale = jnp.full(channels, layer_scale, jnp.float32)
        self.drop_path = DropPath(drop_path_rate)

    def __call__(self, image: Image, *, key: Key | None) -> Image:
        """Returns maps `[h w channels]`."""
        x = each_position(self.norm, self.conv(image))
        x = jax.nn.gelu(each_position(self.fc1, x), approximate=False)  # h w 4*channels
        x = each_position(self.fc2, x) * self.layer_scale[None, None]  # h w channels
        return image + self.drop_path(x, key=key)


class Downsample(eqx.Module):
    """LayerNorm at each position, then a 2x2 convolution with stride 2 (section 2.6)."""

    norm: LayerNorm
    conv: Conv

    def __init__(self, in_channels: int, out_channels: int, *, key: Key):
        self.norm = _norm(in_channels)
        self.conv = Conv(in_channels, out_channels, 2, 2, padding="VALID", weight_init=_INIT, key=key)

    def __call__(self, image: Image) -> Float[Array, "h2 w2 o"]:
        """Returns maps `[h/2 w/2 out_channels]`."""
        return self.conv(each_position(self.norm, image))


class ConvNeXt(eqx.Module):
    """An embedding of 4x4 patches, then stages of `ConvNeXtBlock` (Liu et al. 2022, section 3).

    Initial weights are normal with standard deviation 0.02; biases start at zero.

    **Arguments:**

    - `widths`, `depths`: channels and number of blocks of each stage.
    - `layer_scale`: initial value of the learned per-channel factor on each residual branch.
    - `drop_path_rate`: drop path rate of the last block; the rates increase linearly from 0.

    **Raises:** `InputError` unless `widths` and `depths` have one positive number per stage.
    """

    stem: Conv
    stem_norm: LayerNorm
    stages: tuple[tuple[ConvNeXtBlock, ...], ...]
    downsamples: tuple[Downsample, ...]
    norm: LayerNorm
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        widths: tuple[int, ...] = (96, 192, 384, 768),
        depths: tuple[int, ...] = (3, 3, 9, 3),
        layer_scale: float | int = 1e-6,
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.1,
        *,
        key: Key,
    ):
        if not widths or len(widths) != len(depths) or min(*widths, *depths) < 1:
            raise InputError(
                f"`widths` (={widths}) and `depths` (={depths}) must each have one number of at least 1 per stage"
            )
        stem_key, head_key, *keys = jax.random.split(key, 2 + len(widths) + sum(depths))
        self.stem = Conv(in_channels, widths[0], 4, 4, padding="VALID", weight_init=_INIT, key=stem_key)
        self.stem_norm = _norm(widths[0])
        self.downsamples = tuple(Downsample(n_in, n_out, key=keys.pop()) for n_in, n_out in pairwise(widths))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = tuple(
            tuple(ConvNeXtBlock(width, layer_scale, next(rates), key=keys.pop()) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.norm = _norm(widths[-1])
        self.dropout = Dropout(dropout_rate)
        self.head = make_linear(widths[-1], num_classes, _INIT, key=head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each stage, `[h/4 w/4 widths[0]]` and so on, each half the previous size."""
        blocks = [block for stage in self.stages for block in stage]
        keys = iter(keys_for(key, len(blocks), used=any(block.drop_path.rate for block in blocks)))
        x = each_position(self.stem_norm, self.stem(image))  # h/4 w/4 widths[0]
        maps = ()
        for downsample, stage in zip((None, *self.downsamples), self.stages, strict=True):
            x = x if downsample is None else downsample(x)  # h/2 w/2
            for block in stage:
                x = block(x, key=next(keys))
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its normalized features if `num_classes=0`."""
        path_key, dropout_key = keys_for(key, 2, used=self.dropout.p > 0)
        maps, state = self.features(image, state, key=key if path_key is None else path_key)
        return self.head(self.dropout(self.norm(global_avg_pool(maps[-1])), key=dropout_key)), state


#: Channels and blocks of each stage, parameters, and torchvision's drop path rate.
_ROWS = {
    "convnext_tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 28_589_128, 0.1),
    "convnext_small": ((96, 192, 384, 768), (3, 3, 27, 3), 50_223_688, 0.4),
    "convnext_base": ((128, 256, 512, 1024), (3, 3, 27, 3), 88_591_464, 0.5),
    "convnext_large": ((192, 384, 768, 1536), (3, 3, 27, 3), 197_767_336, 0.5),
}
variants = {
    name: Variant(
        make=partial(ConvNeXt, widths=widths, depths=depths, drop_path_rate=rate),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2201.03545",
        task="imagenet",
        smallest=32,
        strides=(4, 8, 16, 32),
        torch_twin=name,
    )
    for name, (widths, depths, params, rate) in _ROWS.items()
}
