"""ResNets with squeeze-and-excitation (Hu et al. 2018): timm's `legacy_seresnet` for ImageNet, and CIFAR variants."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax

from ..layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    Dropout,
    DropPath,
    Linear,
    MaxPool,
    SqueezeExcite,
    global_avg_pool,
    keys_for,
)
from ..layers.blocks.residual import Resized, plain_conv, projection
from ..layers.blocks.stages import make_layers, run_layers
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["REDUCTION", "SEBasicBlock", "SEBottleneck", "SEResNet", "variants"]

#: Ratio of channels to hidden channels in each squeeze-and-excitation.
REDUCTION = 16


class SEBasicBlock(eqx.Module):
    """Two 3x3 convolutions and squeeze-and-excitation, plus a shortcut (Hu et al. 2018, figure 3).

    **Arguments:**

    - `in_channels`, `width`: input channels, and channels of both convolutions.
    - `stride`: stride of the first convolution and the shortcut.
    - `drop_path_rate`: probability of dropping the branch in training.
    - `use_relu_before_gate`: whether to apply ReLU before the squeeze-and-excitation, as timm does.
    """

    conv1: Conv
    bn1: BatchNorm
    conv2: Conv
    bn2: BatchNorm
    se: SqueezeExcite
    downsample: ConvNorm | None
    drop_path: DropPath
    out_channels: int = eqx.field(static=True)
    use_relu_before_gate: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        drop_path_rate: float,
        use_relu_before_gate: bool = False,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 4)
        self.conv1 = plain_conv(in_channels, width, 3, stride, key=keys[0])
        self.bn1 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=keys[1])
        self.bn2 = BatchNorm(width)
        self.se = SqueezeExcite(width, width // REDUCTION, key=keys[2])
        self.downsample = projection(in_channels, width, stride, key=keys[3])
        self.drop_path = DropPath(drop_path_rate)
        self.out_channels = width
        self.use_relu_before_gate = use_relu_before_gate

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """Returns maps `[h/stride w/stride width]` and the new state."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        out = self.se(jax.nn.relu(out) if self.use_relu_before_gate else out)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state


class SEBottleneck(eqx.Module):
    """1x1, 3x3 and 1x1 convolutions and squeeze-and-excitation, plus a shortcut (Hu et al. 2018, figure 3).

    The output has `4 * width` channels.

    **Arguments:**

    - `in_channels`, `width`: input channels, and channels of the first two convolutions.
    - `stride`: stride of the first convolution and the shortcut.
    - `drop_path_rate`: probability of dropping the branch in training.
    """

    conv1: Conv
    bn1: BatchNorm
    conv2: Conv
    bn2: BatchNorm
    conv3: Conv
    bn3: BatchNorm
    se: SqueezeExcite
    downsample: ConvNorm | None
    drop_path: DropPath
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, width: int, stride: int, drop_path_rate: float, *, key: Key):
        keys = jax.random.split(key, 5)
        self.conv1 = plain_conv(in_channels, width, 1, stride, key=keys[0])
        self.bn1 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=keys[1])
        self.bn2 = BatchNorm(width)
        self.conv3 = plain_conv(width, 4 * width, 1, key=keys[2])
        self.bn3 = BatchNorm(4 * width)
        self.se = SqueezeExcite(4 * width, 4 * width // REDUCTION, key=keys[3])
        self.downsample = projection(in_channels, 4 * width, stride, key=keys[4])
        self.drop_path = DropPath(drop_path_rate)
        self.out_channels = 4 * width

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """Returns maps `[h/stride w/stride 4*width]` and the new state."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        out, state = self.bn3(self.conv3(jax.nn.relu(out)), state)
        shortcut, state = (x, state) if self.downsample is None else self.downsample(x, state)
        return jax.nn.relu(self.drop_path(self.se(out), key=key) + shortcut), state


class SEResNet(eqx.Module):
    """A stem, stages of residual blocks with squeeze-and-excitation, and a dense head (Hu et al. 2018, table 1).

    Convolutions are initialized with He normal values (fan-out), and the head as in torch's `Linear`.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, drop_path_rate, key=)` makes a block.
    - `depths`: number of blocks of each stage.
    - `width`: channels of the first convolution and width of the first stage; each later stage is twice as wide.
    - `use_small_stem`: whether to use a 3x3 convolution with stride 1 and no pooling, for small images.
    """

    conv1: Conv
    bn1: BatchNorm
    layers: tuple[tuple[SEBasicBlock | SEBottleneck, ...], ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    pool: MaxPool | None
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        block: Callable[..., SEBasicBlock | SEBottleneck],
        depths: tuple[int, ...],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        width: int = 64,
        use_small_stem: bool = False,
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, key, head_key = jax.random.split(key, 3)
        self.conv1 = plain_conv(in_channels, width, *((3, 1) if use_small_stem else (7, 2)), key=stem_key)
        self.bn1 = BatchNorm(width)
        # As in Caffe, the last window extends past the edge; torchvision's ResNet pads on all sides instead.
        self.pool = None if use_small_stem else MaxPool(3, 2, ceil_mode=True)
        widths = [width * 2**stage for stage in range(len(depths))]
        self.layers = make_layers(block, width, widths, depths, drop_path_rate, key=key)
        pooled = self.layers[-1][-1].out_channels
        self.head = Linear(pooled, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.is_random = dropout_rate > 0 or drop_path_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each stage."""
        x, state = self.bn1(self.conv1(image), state)
        x = jax.nn.relu(x) if self.pool is None else self.pool(jax.nn.relu(x))  # h/4 w/4 width with the pool
        return run_layers(self.layers, x, state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        first, last = keys_for(key, 2, used=self.is_random)
        maps, state = self.features(image, state, key=first)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=last)), state


_basic = partial(SEBasicBlock, use_relu_before_gate=True)
_ROWS = {
    "se_resnet18": (_basic, (2, 2, 2, 2), 11_778_592),
    "se_resnet34": (_basic, (3, 4, 6, 3), 21_958_868),
    "se_resnet50": (SEBottleneck, (3, 4, 6, 3), 28_088_024),
    "se_resnet101": (SEBottleneck, (3, 4, 23, 3), 49_326_872),
    "se_resnet152": (SEBottleneck, (3, 8, 36, 3), 66_821_848),
}
#: Blocks per stage and parameters. The networks are `resnet20_b` and so on, with squeeze-and-excitation.
_SMALL_ROWS = {
    "se_resnet20": (3, 274_847),
    "se_resnet32": (5, 470_861),
    "se_resnet56": (9, 862_889),
    "se_resnet110": (18, 1_744_952),
}
variants = {
    name: Variant(
        make=partial(SEResNet, block=block, depths=depths),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/1709.01507",
        task="imagenet",
        smallest=3,
        strides=(4, 8, 16, 32),
        torch_twin=f"timm/legacy_{name.replace('_', '')}",
    )
    for name, (block, depths, params) in _ROWS.items()
} | {
    name: Variant(
        make=partial(SEResNet, block=SEBasicBlock, depths=3 * (depth,), width=16, use_small_stem=True),
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source="https://github.com/osmr/imgclsmob",
        task="cifar",
        strides=(1, 2, 4),
        recipe=name if name == "se_resnet20" else None,
    )
    for name, (depth, params) in _SMALL_ROWS.items()
}
