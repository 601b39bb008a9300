"""MobileNetV2 (Sandler et al. 2018), at several widths for ImageNet, and a variant for the small images of CIFAR-10."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import ConvNorm, Dropout, global_avg_pool, make_linear, round_channels
from ..layers.blocks.inverted_residual import InvertedResidual, stage_ends
from ..layers.initializers import he_normal_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["MobileNetV2", "ProjectedResidual", "variants"]

#: For each stage: expansion, channels, blocks, stride of the first block (table 2).
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ProjectedResidual(eqx.Module):
    """An inverted residual that changes the number of channels, with a 1x1 convolution as its shortcut."""

    block: InvertedResidual
    shortcut: ConvNorm

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h w o"], eqx.nn.State]:
        """Returns maps `[h w out_channels]` and the new state."""
        x, state = self.block(image, state)
        shortcut, state = self.shortcut(image, state)
        return shortcut + x, state


class MobileNetV2(eqx.Module):
    """A stem, seventeen inverted residuals and a last 1x1 convolution (Sandler et al. 2018, table 2).

    Convolutions are initialized with He normal values (fan-out), and the head with normal values of standard deviation
    0.01, as in torchvision.

    **Arguments:**

    - `width`: factor on all channel counts, which are rounded to multiples of eight; the last count is at least 1280.
    - `small_images`: whether to use the variant of github.com/kuangliu/pytorch-cifar: the stem and the stage
      with 24 channels have stride 1; ReLU replaces ReLU6; the first block also expands; a block with stride 1 that
      changes the number of channels has a 1x1 convolution as its shortcut.
    """

    #: Stem, blocks and the last 1x1 convolution.
    trunk: tuple[ConvNorm | InvertedResidual | ProjectedResidual, ...]
    dropout: Dropout
    head: eqx.nn.Linear | eqx.nn.Identity
    ends: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        width: float | int = 1,
        small_images: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        rows = _plan_blocks(width, small_images)
        stem_stride, last_channels = 1 if small_images else 2, round_channels(1280 * max(1, width))
        stem_key, last_key, head_key, *keys = jax.random.split(key, len(rows) + 3)
        make = partial(ConvNorm, activation=_choose_activation(small_images), weight_init=he_normal_fan_out)
        self.trunk = (
            make(in_channels, rows[0][1], 3, stem_stride, key=stem_key),
            *(_make_block(*row, small_images, key=block_key) for row, block_key in zip(rows, keys, strict=True)),
            make(rows[-1][2], last_channels, 1, key=last_key),
        )
        self.dropout = Dropout(dropout_rate)
        init = normal(0.01)
        self.head = make_linear(last_channels, num_classes, init, key=head_key) if num_classes else eqx.nn.Identity()
        self.ends = stage_ends([stem_stride, *(stride for *_, stride in rows), 1])

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution, `[h/2 w/2 16]` to `[h/32 w/32 1280]` for a width factor of 1."""
        maps, x = (), image
        for index, layer in enumerate(self.trunk):
            x, state = layer(x, state)
            maps += (x,) if index in self.ends else ()
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _plan_blocks(width: float | int, small_images: bool) -> list[tuple[int, int, int, int]]:
    """Returns expansion, input channels, output channels and stride of each block."""
    rows, in_channels = [], round_channels(32 * width)
    for expansion, channels, blocks, first_stride in _STAGES:
        out_channels = round_channels(channels * width)
        for index in range(blocks):
            has_stride = index == 0 and not (small_images and channels == 24)
            rows.append((expansion, in_channels, out_channels, first_stride if has_stride else 1))
            in_channels = out_channels
    return rows


def _choose_activation(small_images: bool) -> Callable[[Array], Array]:
    return jax.nn.relu if small_images else jax.nn.relu6


def _make_block(
    expansion: int, in_channels: int, out_channels: int, stride: int, small_images: bool, *, key: Key
) -> InvertedResidual | ProjectedResidual:
    block_key, shortcut_key = jax.random.split(key)
    hidden = in_channels * expansion if expansion > 1 or small_images else None
    activation = _choose_activation(small_images)
    block = InvertedResidual(in_channels, out_channels, hidden, stride=stride, activation=activation, key=block_key)
    if not small_images or stride > 1 or in_channels == out_channels:
        return block
    shortcut = ConvNorm(in_channels, out_channels, 1, activation=None, weight_init=he_normal_fan_out, key=shortcut_key)
    return ProjectedResidual(block, shortcut)


_PAPER = "https://arxiv.org/abs/1801.04381"
#: The parameter counts at other widths are from torchvision's `MobileNetV2(width_mult=...)`.
_TORCHVISION = "https://github.com/pytorch/vision/blob/main/torchvision/models/mobilenetv2.py"
_imagenet = partial(Variant, input=(224, 224, 3), num_classes=1000, task="imagenet", strides=(2, 4, 8, 16, 32))
variants = {
    "mobilenet_v2": _imagenet(make=MobileNetV2, params=3_504_872, source=_PAPER, torch_twin="mobilenet_v2"),
    "mobilenet_v2_x0_5": _imagenet(make=partial(MobileNetV2, width=0.5), params=1_968_680, source=_TORCHVISION),
    "mobilenet_v2_x0_75": _imagenet(make=partial(MobileNetV2, width=0.75), params=2_636_424, source=_TORCHVISION),
    "mobilenet_v2_x1_4": _imagenet(make=partial(MobileNetV2, width=1.4), params=6_108_776, source=_TORCHVISION),
    "mobilenet_v2_cifar": Variant(
        make=partial(MobileNetV2, small_images=True, dropout_rate=0.0),
        input=(32, 32, 3),
        num_classes=10,
        params=2_296_922,
        source="https://github.com/kuangliu/pytorch-cifar/blob/master/models/mobilenetv2.py",
        task="cifar",
        strides=(1, 2, 4, 8),
        recipe="mobilenet_v2_cifar",
    ),
}
