"""Residual networks for 32x32 images: He et al. 2015, section 4.2, and ResNeXt-29 (Xie et al. 2016, section 5.3)."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax

from ..layers import BatchNorm, Conv, Dropout, DropPath, Linear, global_avg_pool, keys_for
from ..layers.blocks.residual import BasicBlock, Bottleneck, Resized, last_norm, padded_identity, plain_conv
from ..layers.blocks.stages import make_layers, run_layers
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["CifarResNet", "PaddedBlock", "variants"]


class PaddedBlock(eqx.Module):
    """Two 3x3 convolutions, plus a shortcut without parameters (He et al. 2015, section 3.3, option A).

    **Arguments:** as for `BasicBlock`, which has a projection where the shape changes (option B).
    """

    conv1: Conv
    bn1: BatchNorm
    conv2: Conv
    bn2: BatchNorm
    drop_path: DropPath
    out_channels: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(
        self, in_channels: int, width: int, stride: int, drop_path_rate: float, zero_init: bool = False, *, key: Key
    ):
        first, second = jax.random.split(key)
        self.conv1 = plain_conv(in_channels, width, 3, stride, key=first)
        self.bn1 = BatchNorm(width)
        self.conv2 = plain_conv(width, width, 3, key=second)
        self.bn2 = last_norm(width, zero_init)
        self.drop_path = DropPath(drop_path_rate)
        self.out_channels = width
        self.stride = stride

    def __call__(self, x: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Resized, eqx.nn.State]:
        """Returns maps `[h/stride w/stride width]` and the new state."""
        out, state = self.bn1(self.conv1(x), state)
        out, state = self.bn2(self.conv2(jax.nn.relu(out)), state)
        shortcut = padded_identity(x, self.out_channels, self.stride)
        return jax.nn.relu(self.drop_path(out, key=key) + shortcut), state


class CifarResNet(eqx.Module):
    """A 3x3 convolution, three stages of `depth` residual blocks each, and a dense head.

    Convolutions are initialized with He normal values (fan-out), and the head as in torch's `Linear`.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, drop_path_rate, zero_init, key=)` makes a block.
    - `depth`: blocks per stage; the network has `6 * depth + 2` layers with weights (`9 * depth + 2` with bottlenecks).
    - `width`: channels of the first convolution and width of the first stage; each later stage is twice as wide.
    - `zero_init_residual`: whether each residual branch starts at zero (Goyal et al. 2017, section 5.1).
    """

    conv1: Conv
    bn1: BatchNorm
    layer1: tuple[PaddedBlock | BasicBlock | Bottleneck, ...]
    layer2: tuple[PaddedBlock | BasicBlock | Bottleneck, ...]
    layer3: tuple[PaddedBlock | BasicBlock | Bottleneck, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        block: Callable[..., PaddedBlock | BasicBlock | Bottleneck],
        depth: int,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        width: int = 16,
        zero_init_residual: bool = False,
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, key, head_key = jax.random.split(key, 3)
        self.conv1 = plain_conv(in_channels, width, 3, key=stem_key)
        self.bn1 = BatchNorm(width)
        make = partial(block, zero_init=zero_init_residual)
        widths = width, 2 * width, 4 * width
        self.layer1, self.layer2, self.layer3 = make_layers(make, width, widths, 3 * (depth,), drop_path_rate, key=key)
        pooled = self.layer3[-1].out_channels
        self.head = Linear(pooled, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.is_random = dropout_rate > 0 or drop_path_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each of the three stages."""
        x, state = self.bn1(self.conv1(image), state)
        layers = self.layer1, self.layer2, self.layer3
        return run_layers(layers, jax.nn.relu(x), state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        first, last = keys_for(key, 2, used=self.is_random)
        maps, state = self.features(image, state, key=first)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=last)), state


def _variant(
    block: Callable[..., PaddedBlock | BasicBlock | Bottleneck],
    depth: int,
    width: int,
    params: int,
    source: str,
    recipe: str | None = None,
) -> Variant:
    return Variant(
        make=partial(CifarResNet, block=block, depth=depth, width=width),
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source=source,
        task="cifar",
        strides=(1, 2, 4),
        recipe=recipe,
    )


_KAIMING, _XIE = "https://arxiv.org/abs/1512.03385", "https://arxiv.org/abs/1611.05431"
#: Blocks per stage, and parameters with shortcut options A and B. Option B adds 2,752 parameters at any depth.
_ROWS = {
    "resnet20": (3, 269_722, 272_474),
    "resnet32": (5, 464_154, 466_906),
    "resnet44": (7, 658_586, 661_338),
    "resnet56": (9, 853_018, 855_770),
    "resnet110": (18, 1_727_962, 1_730_714),
}
#: Groups and parameters; table 7 has 34.4M for 8x64d and 68.1M for 16x64d. The paper used pre-activation blocks. These
#: models have plain blocks, for which the authors' code (github.com/facebookresearch/ResNeXt) reports better scores.
_RESNEXT_ROWS = {
    "resnext29_2x64d": (2, 9_130_314),
    "resnext29_4x64d": (4, 17_562_442),
    "resnext29_8x64d": (8, 34_426_698),
    "resnext29_16x64d": (16, 68_155_210),
}
#: The models that have a recipe of the same name.
_RECIPES = {name: name for name in ("resnet20", "resnet56", "resnet110")}
variants = {
    **{
        name: _variant(PaddedBlock, depth, 16, params, _KAIMING, _RECIPES.get(name))
        for name, (depth, params, _) in _ROWS.items()
    },
    **{f"{name}_b": _variant(BasicBlock, depth, 16, params, _KAIMING) for name, (depth, _, params) in _ROWS.items()},
    **{
        name: _variant(partial(Bottleneck, groups=groups), 3, 64, params, _XIE)
        for name, (groups, params) in _RESNEXT_ROWS.items()
    },
}
