"""EfficientNet (Tan and Le 2019), B0 to B7, and EfficientNetV2 (Tan and Le 2021), S to L."""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax

from ..layers import (
    ConvNorm,
    Dropout,
    SqueezeExcite,
    drop_path_rates,
    global_avg_pool,
    keys_for,
    make_linear,
    round_channels,
)
from ..layers.blocks.inverted_residual import FusedResidual, InvertedResidual, stage_ends
from ..layers.initializers import he_normal_fan_out, uniform_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["EfficientNet", "Stage", "variants"]


class Stage(NamedTuple):
    """A stage, one row of the papers' tables; only its first block applies the stride and changes the channel count."""

    expansion: int
    kernel_size: int
    stride: int
    channels: int
    blocks: int
    fused: bool = False


#: Tan and Le 2019, table 1.
_B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class EfficientNet(eqx.Module):
    """Inverted residuals with squeeze-and-excitation; the early blocks of V2 are fused and have no
    squeeze-and-excitation (Tan and Le 2019, table 1; 2021, table 4).

    Convolutions are initialized with He normal values (fan-out), and the head with uniform values of
    magnitude up to 1 / sqrt(num_classes), as in torchvision.

    **Arguments:**

    - `stages`: the rows of the paper's table.
    - `stem_channels`, `last_channels`: channels of the first 3x3 and the last 1x1 convolution.
    - `eps`, `momentum`: as for `BatchNorm`.
    - `drop_path_rate`: block `i` of `n` is dropped with probability `drop_path_rate * i / n`.
    """

    #: Stem, stages and the last 1x1 convolution.
    trunk: tuple[ConvNorm | tuple[InvertedResidual | FusedResidual, ...], ...]
    dropout: Dropout
    head: eqx.nn.Linear | eqx.nn.Identity
    ends: tuple[int, ...] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    drop_path_rate: float | int = eqx.field(static=True)

    def __init__(
        self,
        stages: tuple[Stage, ...] = _B0,
        stem_channels: int = 32,
        last_channels: int = 1280,
        eps: float = 1e-5,
        momentum: float = 0.1,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.2,
        drop_path_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        self.depth = sum(stage.blocks for stage in stages)
        self.drop_path_rate = drop_path_rate
        stem_key, last_key, head_key, *keys = jax.random.split(key, self.depth + 3)
        make = partial(ConvNorm, activation=jax.nn.silu, eps=eps, momentum=momentum, weight_init=he_normal_fan_out)
        # The reference divides by n, not n - 1, so the last block's rate stays below `drop_path_rate`.
        rates_and_keys = iter(zip(drop_path_rates(drop_path_rate, self.depth + 1), keys, strict=False))
        widths = (stem_channels, *(stage.channels for stage in stages))
        self.trunk = (
            make(in_channels, stem_channels, 3, 2, key=stem_key),
            *(
                _make_stage(width, stage, eps, momentum, rates_and_keys)
                for width, stage in zip(widths, stages, strict=False)
            ),
            make(stages[-1].channels, last_channels, 1, key=last_key),
        )
        self.dropout = Dropout(dropout_rate)
        init = uniform_fan_out
        self.head = make_linear(last_channels, num_classes, init, key=head_key) if num_classes else eqx.nn.Identity()
        self.ends = stage_ends([2, *(stage.stride for stage in stages), 1])

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution, `[h/2 w/2 16]` to `[h/32 w/32 1280]` in B0."""
        keys = iter(keys_for(key, self.depth, used=self.drop_path_rate > 0))
        maps, x = (), image
        for index, part in enumerate(self.trunk):
            if isinstance(part, ConvNorm):
                x, state = part(x, state)
            else:
                for block in part:
                    x, state = block(x, state, key=next(keys))
            maps += (x,) if index in self.ends else ()
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        used = self.drop_path_rate > 0 or self.dropout.p > 0
        features_key, dropout_key = keys_for(key, 2, used=used)
        maps, state = self.features(image, state, key=features_key)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=dropout_key)), state


def _make_stage(
    in_channels: int, stage: Stage, eps: float, momentum: float, rates_and_keys: Iterator[tuple[float, Key]]
) -> tuple[InvertedResidual | FusedResidual, ...]:
    """Makes the blocks of a stage; each takes the next drop path rate and key from `rates_and_keys`."""
    shapes = ((in_channels, stage.stride), *((stage.channels, 1),) * (stage.blocks - 1))
    return tuple(
        _make_block(n_in, stage, stride, rate, eps, momentum, key=key)
        for (n_in, stride), (rate, key) in zip(shapes, rates_and_keys, strict=False)
    )


def _make_block(
    in_channels: int, stage: Stage, stride: int, drop_path_rate: float, eps: float, momentum: float, *, key: Key
) -> InvertedResidual | FusedResidual:
    block_key, gate_key = jax.random.split(key)
    hidden = in_channels * stage.expansion
    shape = in_channels, stage.channels, None if stage.expansion == 1 else hidden, stage.kernel_size, stride
    if stage.fused:
        return FusedResidual(*shape, drop_path_rate, activation=jax.nn.silu, eps=eps, momentum=momentum, key=block_key)
    gate = SqueezeExcite(hidden, in_channels // 4, jax.nn.silu, key=gate_key)
    return InvertedResidual(
        *shape, gate, drop_path_rate, activation=jax.nn.silu, eps=eps, momentum=momentum, key=block_key
    )


def _scale_b0(width: float, depth: float) -> tuple[Stage, ...]:
    """Scales the widths of B0's stages by `width`, and their depths by `depth` (Tan and Le 2019, section 3.3)."""
    return tuple(
        stage._replace(channels=round_channels(stage.channels * width), blocks=math.ceil(stage.blocks * depth))
        for stage in _B0
    )


def _make_v2_stages(channels: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[Stage, ...]:
    """Makes the stages of a V2 network from their channels and blocks; S has six stages, M and L have seven."""
    rows = ((1, 1, True), (4, 2, True), (4, 2, True), (4, 2, False), (6, 1, False), (6, 2, False), (6, 1, False))
    return tuple(
        Stage(expansion, 3, stride, width, depth, fused)
        for (expansion, stride, fused), width, depth in zip(rows, channels, blocks, strict=False)
    )


#: Width and depth multipliers, image size, dropout rate, BatchNorm's eps and momentum, parameters; as in torchvision.
_V1_ROWS = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2, 1e-5, 0.1, 5_288_548),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2, 1e-5, 0.1, 7_794_184),
    "efficientnet_b2": (1.1, 1.2, 288, 0.3, 1e-5, 0.1, 9_109_994),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3, 1e-5, 0.1, 12_233_232),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4, 1e-5, 0.1, 19_341_616),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4, 1e-3, 0.01, 30_389_784),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5, 1e-3, 0.01, 43_040_704),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5, 1e-3, 0.01, 66_347_960),
}
#: Channels and blocks of each stage, image size, dropout rate, parameters.
_V2_ROWS = {
    "efficientnet_v2_s": ((24, 48, 64, 128, 160, 256), (2, 4, 4, 6, 9, 15), 384, 0.2, 21_458_488),
    "efficientnet_v2_m": ((24, 48, 80, 160, 176, 304, 512), (3, 5, 5, 7, 14, 18, 5), 480, 0.3, 54_139_356),
    "efficientnet_v2_l": ((32, 64, 96, 192, 224, 384, 640), (4, 7, 7, 10, 19, 25, 7), 480, 0.4, 118_515_272),
}
_imagenet = partial(Variant, num_classes=1000, task="imagenet", strides=(2, 4, 8, 16, 32))
variants = {
    name: _imagenet(
        make=partial(
            EfficientNet,
            stages=_scale_b0(width, depth),
            stem_channels=round_channels(32 * width),
            last_channels=round_channels(1280 * width),
            eps=eps,
            momentum=momentum,
            dropout_rate=dropout_rate,
        ),
        input=(size, size, 3),
        params=params,
        source="https://arxiv.org/abs/1905.11946",
        recipe="efficientnet_b0_catsdogs" if name == "efficientnet_b0" else None,
        torch_twin=name,
    )
    for name, (width, depth, size, dropout_rate, eps, momentum, params) in _V1_ROWS.items()
} | {
    name: _imagenet(
        make=partial(
            EfficientNet,
            stages=_make_v2_stages(channels, blocks),
            stem_channels=channels[0],
            eps=1e-3,
            dropout_rate=dropout_rate,
        ),
        input=(size, size, 3),
        params=params,
        source="https://arxiv.org/abs/2104.00298",
        torch_twin=name,
    )
    for name, (channels, blocks, size, dropout_rate, params) in _V2_ROWS.items()
}
