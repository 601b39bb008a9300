"""ResNet (He et al. 2015), ResNeXt (Xie et al. 2016) and wide ResNet, as in torchvision."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax

from ..layers import BatchNorm, Conv, Dropout, Linear, MaxPool, global_avg_pool, keys_for
from ..layers.blocks.residual import BasicBlock, Bottleneck, plain_conv
from ..layers.blocks.stages import make_layers, run_layers
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["ResNet", "variants"]


class ResNet(eqx.Module):
    """A stem, four stages of residual blocks and a dense head (He et al. 2015, table 1).

    Convolutions are initialized with He normal values (fan-out), and the head as in torch's `Linear`.

    **Arguments:**

    - `block`: `block(in_channels, width, stride, drop_path_rate, zero_init, key=)` makes a block.
    - `depths`: number of blocks of each stage; the widths are 64, 128, 256 and 512.
    - `use_small_stem`: whether to use a 3x3 convolution with stride 1 and no pooling, for small images.
    - `zero_init_residual`: whether each residual branch starts at zero (Goyal et al. 2017, section 5.1).
    """

    conv1: Conv
    bn1: BatchNorm
    layer1: tuple[BasicBlock | Bottleneck, ...]
    layer2: tuple[BasicBlock | Bottleneck, ...]
    layer3: tuple[BasicBlock | Bottleneck, ...]
    layer4: tuple[BasicBlock | Bottleneck, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    pool: MaxPool | None
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        block: Callable[..., BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        use_small_stem: bool = False,
        zero_init_residual: bool = False,
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        stem_key, key, head_key = jax.random.split(key, 3)
        self.conv1 = plain_conv(in_channels, 64, *((3, 1) if use_small_stem else (7, 2)), key=stem_key)
        self.bn1 = BatchNorm(64)
        self.pool = None if use_small_stem else MaxPool(3, 2, padding=1)
        make = partial(block, zero_init=zero_init_residual)
        layers = make_layers(make, 64, (64, 128, 256, 512), depths, drop_path_rate, key=key)
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        width = self.layer4[-1].out_channels
        self.head = Linear(width, num_classes, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.is_random = dropout_rate > 0 or drop_path_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each of the four stages."""
        x, state = self.bn1(self.conv1(image), state)
        x = jax.nn.relu(x) if self.pool is None else self.pool(jax.nn.relu(x))  # h/4 w/4 64 with the pool
        layers = self.layer1, self.layer2, self.layer3, self.layer4
        return run_layers(layers, x, state, key=key if self.is_random else None)

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        first, last = keys_for(key, 2, used=self.is_random)
        maps, state = self.features(image, state, key=first)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=last)), state


_KAIMING, _XIE, _ZAGORUYKO = (f"https://arxiv.org/abs/{paper}" for paper in ("1512.03385", "1611.05431", "1605.07146"))
_KUANGLIU = "https://github.com/kuangliu/pytorch-cifar"
_ROWS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 11_689_512, _KAIMING),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 21_797_672, _KAIMING),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 25_557_032, _KAIMING),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 44_549_160, _KAIMING),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 60_192_808, _KAIMING),
    "resnext50_32x4d": (partial(Bottleneck, groups=32, base_width=4), (3, 4, 6, 3), 25_028_904, _XIE),
    "resnext101_32x8d": (partial(Bottleneck, groups=32, base_width=8), (3, 4, 23, 3), 88_791_336, _XIE),
    "resnext101_64x4d": (partial(Bottleneck, groups=64, base_width=4), (3, 4, 23, 3), 83_455_272, _XIE),
    "wide_resnet50_2": (partial(Bottleneck, base_width=128), (3, 4, 6, 3), 68_883_240, _ZAGORUYKO),
    "wide_resnet101_2": (partial(Bottleneck, base_width=128), (3, 4, 23, 3), 126_886_696, _ZAGORUYKO),
}
_SMALL_ROWS = {
    "resnet18_cifar": (BasicBlock, (2, 2, 2, 2), 11_173_962),
    "resnet34_cifar": (BasicBlock, (3, 4, 6, 3), 21_282_122),
    "resnet50_cifar": (Bottleneck, (3, 4, 6, 3), 23_520_842),
}
_imagenet = partial(Variant, input=(224, 224, 3), num_classes=1000, task="imagenet", strides=(4, 8, 16, 32))
_cifar = partial(Variant, input=(32, 32, 3), num_classes=10, task="cifar", strides=(1, 2, 4, 8))
variants = {
    name: _imagenet(make=partial(ResNet, block=block, depths=depths), params=params, source=source, torch_twin=name)
    for name, (block, depths, params, source) in _ROWS.items()
} | {
    name: _cifar(
        make=partial(ResNet, block=block, depths=depths, use_small_stem=True),
        params=params,
        source=_KUANGLIU,
        recipe=name if name == "resnet18_cifar" else None,
    )
    for name, (block, depths, params) in _SMALL_ROWS.items()
}
