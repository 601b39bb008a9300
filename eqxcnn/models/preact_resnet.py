"""Pre-activation ResNets (He et al. 2016) and wide ResNets (Zagoruyko and Komodakis 2016)."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax

from ..layers import BatchNorm, Conv, Dropout, Linear, global_avg_pool
from ..layers.blocks.residual import Resized, padded_identity, plain_conv
from ..layers.blocks.stages import run_layers
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["PreActBlock", "PreActBottleneck", "PreActResNet", "variants"]


class PreActBlock(eqx.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, plus a shortcut (He et al. 2016, figure 1 b).

    **Arguments:**

    - `in_channels`, `width`: input channels, and channels of both convolutions.
    - `stride`: stride of the first convolution and the shortcut.
    - `activate_shortcut`: whether the first ReLU, instead of the block's input, feeds the shortcut. A
      convolutional shortcut always comes after the ReLU.
    - `dropout_rate`: dropout rate before the last convolution (Zagoruyko and Komodakis 2016, figure 1 d).
    - `use_projection`: whether a shortcut that changes the shape is a 1x1 convolution, instead of zero padding.
    """

    bn1: BatchNorm
    conv1: Conv
    bn2: BatchNorm
    conv2: Conv
    shortcut: Conv | None
    dropout: Dropout
    out_channels: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    activate_shortcut: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        activate_shortcut: bool,
        dropout_rate: float | int = 0.0,
        use_projection: bool = True,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 3)
        has_projection = use_projection and (stride != 1 or in_channels != width)
        self.bn1 = BatchNorm(in_channels)
        self.conv1 = plain_conv(in_channels, width, 3, stride, key=keys[0])
        self.bn2 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=keys[1])
        self.shortcut = plain_conv(in_channels, width, 1, stride, key=keys[2]) if has_projection else None
        self.dropout = Dropout(dropout_rate)
        self.out_channels, self.stride, self.activate_shortcut = width, stride, activate_shortcut

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """Returns maps `[h/stride w/stride width]` and the new state."""
        out, state = self.bn1(x, state)
        out = jax.nn.relu(out)
        if self.shortcut is None:
            shortcut = padded_identity(out if self.activate_shortcut else x, self.out_channels, self.stride)
        else:
            shortcut = self.shortcut(out)
        out, state = self.bn2(self.conv1(out), state)
        return self.conv2(self.dropout(jax.nn.relu(out), key=key)) + shortcut, state


class PreActBottleneck(eqx.Module):
    """BatchNorm, ReLU and a convolution, three times (1x1, 3x3, 1x1), plus a shortcut (He et al. 2016, section 4).

    The output has `4 * width` channels.

    **Arguments:** as for `PreActBlock`, and

    - `use_early_stride`: whether to apply the stride in the first convolution instead of the second.
    """

    bn1: BatchNorm
    conv1: Conv
    bn2: BatchNorm
    conv2: Conv
    bn3: BatchNorm
    conv3: Conv
    shortcut: Conv | None
    dropout: Dropout
    out_channels: int = eqx.field(static=True)
    activate_shortcut: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        activate_shortcut: bool,
        dropout_rate: float | int = 0.0,
        use_early_stride: bool = False,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 4)
        first, second = (stride, 1) if use_early_stride else (1, stride)
        self.bn1 = BatchNorm(in_channels)
        self.conv1 = plain_conv(in_channels, width, 1, first, key=keys[0])
        self.bn2 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, second, key=keys[1])
        self.bn3 = BatchNorm(width)
        self.conv3 = plain_conv(width, 4 * width, 1, key=keys[2])
        has_projection = stride != 1 or in_channels != 4 * width
        self.shortcut = plain_conv(in_channels, 4 * width, 1, stride, key=keys[3]) if has_projection else None
        self.dropout = Dropout(dropout_rate)
        self.out_channels, self.activate_shortcut = 4 * width, activate_shortcut

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """Returns maps `[h/stride w/stride 4*width]` and the new state."""
        out, state = self.bn1(x, state)
        out = jax.nn.relu(out)
        identity = out if self.activate_shortcut else x
        shortcut = identity if self.shortcut is None else self.shortcut(out)
        out, state = self.bn2(self.conv1(out), state)
        out, state = self.bn3(self.conv2(jax.nn.relu(out)), state)
        return self.conv3(self.dropout(jax.nn.relu(out), key=key)) + shortcut, state


class PreActResNet(eqx.Module):
    """A 3x3 convolution, stages of pre-activation blocks and a dense head (He et al. 2016).

    Convolutions are initialized with He normal values (fan-out), and the head as in torch's `Linear`.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, activate_shortcut, dropout_rate, key=)` makes a block.
    - `depths`, `widths`: number of blocks of each stage, and their width; later stages start with stride 2.
    - `stem_width`: channels of the first convolution.
    - `activates_ends`: if true, the first ReLU feeds the shortcut in the first block of each stage, and BatchNorm and
      ReLU follow the last block (He et al. 2016, appendix).
    - `dropout_rate`: dropout rate inside each block.
    """

    conv1: Conv
    layers: tuple[tuple[PreActBlock | PreActBottleneck, ...], ...]
    bn: BatchNorm | None
    head: eqx.nn.Linear | eqx.nn.Identity
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        block: Callable[..., PreActBlock | PreActBottleneck],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        stem_width: int = 16,
        activates_ends: bool = True,
        dropout_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, head_key, *keys = jax.random.split(key, 2 + sum(depths))
        self.conv1 = plain_conv(in_channels, stem_width, 3, key=stem_key)
        channels, layers = stem_width, []
        for width, depth in zip(widths, depths, strict=True):
            blocks = []
            for is_first in [True] + [False] * (depth - 1):
                stride = 2 if layers and is_first else 1
                blocks.append(block(channels, width, stride, activates_ends and is_first, dropout_rate, key=keys.pop()))
                channels = blocks[-1].out_channels
            layers.append(tuple(blocks))
        self.layers = tuple(layers)
        self.bn = BatchNorm(channels) if activates_ends else None
        self.head = Linear(channels, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.is_random = dropout_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each stage; the final BatchNorm and ReLU are not applied to the last output."""
        return run_layers(self.layers, self.conv1(image), state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        x = maps[-1]
        if self.bn is not None:
            x, state = self.bn(x, state)
            x = jax.nn.relu(x)
        return self.head(global_avg_pool(x)), state


#: Models with a recipe of the same name.
_RECIPES = {"preact_resnet18", "preact_resnet110", "preact_resnet164", "wrn_16_8", "wrn_28_10", "wrn_40_4"}


def _variant(name: str, make: partial[PreActResNet], params: int, source: str) -> Variant:
    return Variant(
        make=make,
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source=source,
        task="cifar",
        strides=(1, 2, 4, 8)[: len(make.keywords["widths"])],
        recipe=name if name in _RECIPES else None,
    )


_KUANGLIU = "https://github.com/kuangliu/pytorch-cifar"
_HE, _ZAGORUYKO = "https://arxiv.org/abs/1603.05027", "https://arxiv.org/abs/1605.07146"
_large = partial(PreActResNet, widths=(64, 128, 256, 512), stem_width=64, activates_ends=False)
_LARGE_ROWS = {
    "preact_resnet18": (PreActBlock, (2, 2, 2, 2), 11_171_146),
    "preact_resnet34": (PreActBlock, (3, 4, 6, 3), 21_279_306),
    "preact_resnet50": (PreActBottleneck, (3, 4, 6, 3), 23_509_066),
}
_small = partial(PreActResNet, widths=(16, 32, 64))
# In the paper, only bottlenecks have a projection, and they apply the stride in their first convolution.
_padded = partial(PreActBlock, use_projection=False)
_bottleneck = partial(PreActBottleneck, use_early_stride=True)
_SMALL_ROWS = {
    "preact_resnet110": (_padded, 18, 1_727_962),
    "preact_resnet164": (_bottleneck, 18, 1_703_258),
    "preact_resnet1001": (_bottleneck, 111, 10_327_706),
}
_wide = partial(PreActResNet, block=PreActBlock)
#: Blocks per stage, ratio of the widths to the widths of `preact_resnet110`, parameters.
_WIDE_ROWS = {
    "wrn_16_4": (2, 4, 2_748_890),
    "wrn_16_8": (2, 8, 10_961_370),
    "wrn_22_8": (3, 8, 17_158_106),
    "wrn_28_2": (4, 2, 1_467_610),
    "wrn_28_10": (4, 10, 36_479_194),
    "wrn_40_4": (6, 4, 8_949_210),
}
variants = {
    **{
        name: _variant(name, partial(_large, block=block, depths=depths), params, _KUANGLIU)
        for name, (block, depths, params) in _LARGE_ROWS.items()
    },
    **{
        name: _variant(name, partial(_small, block=block, depths=3 * (depth,)), params, _HE)
        for name, (block, depth, params) in _SMALL_ROWS.items()
    },
    **{
        name: _variant(name, partial(_wide, depths=3 * (depth,), widths=(16 * k, 32 * k, 64 * k)), params, _ZAGORUYKO)
        for name, (depth, k, params) in _WIDE_ROWS.items()
    },
}
