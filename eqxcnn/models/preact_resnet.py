"""Residual networks whose convolutions follow BatchNorm and ReLU (He et al. 2016), the wide ones among them."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax

from ..layers import BatchNorm, Conv, Dropout, Linear, global_avg_pool
from ..layers.blocks.residual import Resized, padded_identity, plain_conv
from ..layers.blocks.stages import run_layers
from ..types import Classifier, Image, Key, Logits, Maps, Variant


class PreActBlock(eqx.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, beside a shortcut (He et al. 2016, figure 1 b).

    **Arguments:**

    - `in_channels`, `width`: channels of the input and of all else.
    - `stride`: of the first convolution and the shortcut.
    - `shares`: whether the first ReLU precedes the shortcut too; it always precedes one that is a convolution.
    - `dropout_rate`: before the last convolution (Zagoruyko and Komodakis 2016, figure 1 d).
    - `use_projection`: whether the shortcut is a 1x1 convolution where the shape changes, or zeros for new channels.
    """

    bn1: BatchNorm
    conv1: Conv
    bn2: BatchNorm
    conv2: Conv
    shortcut: Conv | None
    dropout: Dropout
    out_channels: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    shares: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shares: bool,
        dropout_rate: float | int = 0.0,
        use_projection: bool = True,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 3)
        projects = use_projection and (stride != 1 or in_channels != width)
        self.bn1 = BatchNorm(in_channels)
        self.conv1 = plain_conv(in_channels, width, 3, stride, key=keys[0])
        self.bn2 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=keys[1])
        self.shortcut = plain_conv(in_channels, width, 1, stride, key=keys[2]) if projects else None
        self.dropout = Dropout(dropout_rate)
        self.out_channels, self.stride, self.shares = width, stride, shares

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """The maps `[h/stride w/stride width]`."""
        out, state = self.bn1(x, state)
        out = jax.nn.relu(out)
        if self.shortcut is None:
            shortcut = padded_identity(out if self.shares else x, self.out_channels, self.stride)
        else:
            shortcut = self.shortcut(out)
        out, state = self.bn2(self.conv1(out), state)
        return self.conv2(self.dropout(jax.nn.relu(out), key=key)) + shortcut, state


class PreActBottleneck(eqx.Module):
    """BatchNorm, ReLU and a convolution, 1x1, 3x3 and 1x1, beside a shortcut (He et al. 2016, section 4).

    **Arguments:** those of `PreActBlock`, and

    - `in_channels`: channels of the input; those of the output are `4 * width`.
    - `use_early_stride`: whether the first convolution has the stride, and not the second.
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
    shares: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shares: bool,
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
        reshapes = stride != 1 or in_channels != 4 * width
        self.shortcut = plain_conv(in_channels, 4 * width, 1, stride, key=keys[3]) if reshapes else None
        self.dropout = Dropout(dropout_rate)
        self.out_channels, self.shares = 4 * width, shares

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """The maps `[h/stride w/stride 4*width]`."""
        out, state = self.bn1(x, state)
        out = jax.nn.relu(out)
        kept = out if self.shares else x
        shortcut = kept if self.shortcut is None else self.shortcut(out)
        out, state = self.bn2(self.conv1(out), state)
        out, state = self.bn3(self.conv2(jax.nn.relu(out)), state)
        return self.conv3(self.dropout(jax.nn.relu(out), key=key)) + shortcut, state


class PreActResNet(Classifier):
    """A 3x3 convolution, stages of pre-activated blocks and a dense head.

    Convolutions start normal with He's variance by fan-out, the head as torch's.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, shares, dropout_rate, key=)` makes a block.
    - `depths`, `widths`: the number of blocks of each stage, and their width; each stage but the first halves the map.
    - `stem_width`: channels of the first convolution.
    - `activates_ends`: whether the first ReLU of a stage precedes both of its paths, and BatchNorm and ReLU follow the
      last block (He et al. 2016, appendix).
    - `dropout_rate`: inside each block.
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
        n_in, layers = stem_width, []
        for width, depth in zip(widths, depths, strict=True):
            blocks = []
            for at in range(depth):
                stride, shares = 2 if layers and at == 0 else 1, activates_ends and at == 0
                blocks.append(block(n_in, width, stride, shares, dropout_rate, key=keys.pop()))
                n_in = blocks[-1].out_channels
            layers.append(tuple(blocks))
        self.layers = tuple(layers)
        self.bn = BatchNorm(n_in) if activates_ends else None
        self.head = Linear(n_in, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.is_random = dropout_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The map behind each stage, before the BatchNorm and ReLU that follow the last."""
        return run_layers(self.layers, self.conv1(image), state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its pooled features."""
        maps, state = self.features(image, state, key=key)
        x = maps[-1]
        if self.bn is not None:
            x, state = self.bn(x, state)
            x = jax.nn.relu(x)
        return self.head(global_avg_pool(x)), state


_KUANGLIU = "https://github.com/kuangliu/pytorch-cifar"
_variant = partial(Variant, input=(32, 32, 3), num_classes=10, task="cifar")
_large = partial(PreActResNet, widths=(64, 128, 256, 512), stem_width=64, activates_ends=False)
_LARGE_ROWS = {
    "preact_resnet18": (PreActBlock, (2, 2, 2, 2), 11_171_146),
    "preact_resnet34": (PreActBlock, (3, 4, 6, 3), 21_279_306),
    "preact_resnet50": (PreActBottleneck, (3, 4, 6, 3), 23_509_066),
}
# The paper projects where the shape changes in bottlenecks only, and strides in their first convolution.
_padded = partial(PreActBlock, use_projection=False)
_bottleneck = partial(PreActBottleneck, use_early_stride=True)
_SMALL_ROWS = {
    "preact_resnet110": (_padded, 18, 1_727_962),
    "preact_resnet164": (_bottleneck, 18, 1_703_258),
    "preact_resnet1001": (_bottleneck, 111, 10_327_706),
}
#: Blocks a stage, how many times wider than `preact_resnet110`, and parameters.
_WIDE_ROWS = {
    "wrn_16_4": (2, 4, 2_748_890),
    "wrn_16_8": (2, 8, 10_961_370),
    "wrn_22_8": (3, 8, 17_158_106),
    "wrn_28_2": (4, 2, 1_467_610),
    "wrn_28_10": (4, 10, 36_479_194),
    "wrn_40_4": (6, 4, 8_949_210),
}
#: A recipe has its model's name.
_RECIPES = {
    name: name
    for name in ("preact_resnet18", "preact_resnet110", "preact_resnet164", "wrn_16_8", "wrn_28_10", "wrn_40_4")
}
variants = {
    **{
        name: _variant(
            make=partial(_large, block=b, depths=d),
            params=n,
            source=_KUANGLIU,
            strides=(1, 2, 4, 8),
            recipe=_RECIPES.get(name),
        )
        for name, (b, d, n) in _LARGE_ROWS.items()
    },
    **{
        name: _variant(
            make=partial(PreActResNet, block=block, depths=3 * (depth,), widths=(16, 32, 64)),
            params=params,
            source="https://arxiv.org/abs/1603.05027",
            strides=(1, 2, 4),
            recipe=_RECIPES.get(name),
        )
        for name, (block, depth, params) in _SMALL_ROWS.items()
    },
    **{
        name: _variant(
            make=partial(PreActResNet, block=PreActBlock, depths=3 * (depth,), widths=(16 * k, 32 * k, 64 * k)),
            params=params,
            source="https://arxiv.org/abs/1605.07146",
            strides=(1, 2, 4),
            recipe=_RECIPES.get(name),
        )
        for name, (depth, k, params) in _WIDE_ROWS.items()
    },
}
