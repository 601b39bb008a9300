"""Inception v3: large kernels as stacks of small and of one-sided ones (Szegedy et al. 2016, "Rethinking the Inception
architecture for computer vision"), in torchvision's form.

It is built without the auxiliary classifier, which serves in training only. Torchvision states 27,161,264 parameters:
our 23,834,568, and the 3,326,696 of that classifier on the 768 maps of `Mixed_6e`. Those are 98,560 of a 1x1
convolution to 128 channels, 2,459,136 of a 5x5 one to 768, both with BatchNorm, and 769,000 of a dense layer.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import AvgPool, ConvNorm, Dropout, MaxPool, global_avg_pool, make_linear
from ..types import Classifier, Image, Key, Logits, Maps, Variant

#: Torchvision's is cut off at 2, which is 20 deviations away.
_INIT = normal(0.1)
_conv_norm = partial(ConvNorm, weight_init=_INIT, eps=1e-3)

_Kernel: TypeAlias = int | tuple[int, int]
#: The output channels and kernel of a convolution, or the kernels of two side by side, whose maps are stacked.
Step: TypeAlias = tuple[int, _Kernel] | tuple[int, _Kernel, _Kernel]
#: The convolutions of one branch, in turn.
Branch: TypeAlias = tuple[Step, ...]


class Mixed(eqx.Module):
    """Branches of convolutions and one of pooling, whose maps are stacked.

    **Arguments:**

    - `branches`: the convolutions of each.
    - `pooled`: the channels of the 1x1 convolution behind the 3x3 average pooling. 0 for a module that halves height
      and width: it has 3x3 max pooling with stride 2 and no such convolution, and each branch ends with stride 2.
    """

    branches: tuple[tuple[tuple[ConvNorm, ...], ...], ...]
    branch_pool: ConvNorm | None
    pool: AvgPool | MaxPool
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, branches: Sequence[Branch], pooled: int, *, key: Key):
        *keys, pool_key = jax.random.split(key, len(branches) + 1)
        self.branches = tuple(
            _branch(in_channels, steps, halves=not pooled, key=each) for steps, each in zip(branches, keys, strict=True)
        )
        self.branch_pool = _conv_norm(in_channels, pooled, 1, key=pool_key) if pooled else None
        self.pool = AvgPool(3, 1, 1) if pooled else MaxPool(3, 2)
        self.out_channels = (pooled or in_channels) + sum(_width(steps[-1]) for steps in branches)

    def __call__(self, x: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The branches' maps, one behind the other, and the new state."""
        maps = []
        for branch in self.branches:
            out = x
            for step in branch:
                out, state = _side_by_side(step, out, state)
            maps.append(out)
        out = self.pool(x)
        if self.branch_pool is not None:
            out, state = self.branch_pool(out, state)
        return jnp.concatenate((*maps, out), axis=-1), state


def _branch(in_channels: int, steps: Branch, *, halves: bool, key: Key) -> tuple[tuple[ConvNorm, ...], ...]:
    """The convolutions of one branch; the last one has stride 2 and no padding if it `halves` the maps."""
    convs, channels = [], in_channels
    for index, (step, each) in enumerate(zip(steps, jax.random.split(key, len(steps)), strict=True)):
        width, *kernels = step
        conv = partial(_conv_norm, channels, width)
        if halves and index == len(steps) - 1:
            conv = partial(conv, stride=2, padding="VALID")
        sides = zip(kernels, jax.random.split(each, len(kernels)), strict=True)
        convs.append(tuple(conv(kernel, key=side) for kernel, side in sides))
        channels = _width(step)
    return tuple(convs)


def _width(step: Step) -> int:
    """How many maps a step gives."""
    width, *kernels = step
    return width * len(kernels)


def _side_by_side(
    convs: tuple[ConvNorm, ...], x: Image, state: eqx.nn.State
) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
    maps = []
    for conv in convs:
        out, state = conv(x, state)
        maps.append(out)
    return (jnp.concatenate(maps, axis=-1) if len(maps) > 1 else maps[0]), state


#: 35x35 maps: a 5x5 kernel, and another as two 3x3 (figure 5).
_FIGURE5: tuple[Branch, ...] = (((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)))
#: To 17x17 maps (section 5, figure 10).
_REDUCTION6: tuple[Branch, ...] = (((384, 3),), ((64, 1), (96, 3), (96, 3)))
#: To 8x8 maps.
_REDUCTION7: tuple[Branch, ...] = (((192, 1), (320, 3)), ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)))
#: 8x8 maps: one-sided kernels side by side (figure 7).
_FIGURE7: tuple[Branch, ...] = (
    ((320, 1),),
    ((384, 1), (384, (1, 3), (3, 1))),
    ((448, 1), (384, 3), (384, (1, 3), (3, 1))),
)


def _figure6(width: int) -> tuple[Branch, ...]:
    """17x17 maps: 7x7 kernels as one-sided ones in turn, between `width` channels (figure 6)."""
    across, down = (width, (1, 7)), (width, (7, 1))
    return (
        ((192, 1),),
        ((width, 1), across, (192, (7, 1))),
        ((width, 1), down, across, down, (192, (1, 7))),
    )


#: Branches and channels behind the pooling of the modules on each resolution (table 1).
_STAGES: tuple[tuple[tuple[tuple[Branch, ...], int], ...], ...] = (
    ((_FIGURE5, 32), (_FIGURE5, 64), (_FIGURE5, 64)),
    ((_REDUCTION6, 0), *((_figure6(width), 192) for width in (128, 160, 160, 192))),
    ((_REDUCTION7, 0), (_FIGURE7, 192), (_FIGURE7, 192)),
)


class InceptionV3(Classifier):
    """Five convolutions and eleven `Mixed` modules (table 1), for images of 299x299.

    As torchvision has it, without the auxiliary classifier. Kernels and matrix start normal with a deviation of 0.1.
    Torchvision's trained weights expect images normalized with a mean and a deviation of 0.5 in each channel.
    """

    stem: tuple[ConvNorm, ...]
    mixed5: tuple[Mixed, ...]
    mixed6: tuple[Mixed, ...]
    mixed7: tuple[Mixed, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    pool: MaxPool

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (299, 299),
        dropout_rate: float | int = 0.5,
        *,
        key: Key,
    ):
        *stem_keys, key5, key6, key7, head_key = jax.random.split(key, 9)
        self.stem = (
            _conv_norm(in_channels, 32, 3, 2, padding="VALID", key=stem_keys[0]),
            _conv_norm(32, 32, 3, padding="VALID", key=stem_keys[1]),
            _conv_norm(32, 64, 3, key=stem_keys[2]),
            _conv_norm(64, 80, 1, key=stem_keys[3]),
            _conv_norm(80, 192, 3, padding="VALID", key=stem_keys[4]),
        )
        self.mixed5 = _stage(192, _STAGES[0], key=key5)
        self.mixed6 = _stage(self.mixed5[-1].out_channels, _STAGES[1], key=key6)
        self.mixed7 = _stage(self.mixed6[-1].out_channels, _STAGES[2], key=key7)
        channels = self.mixed7[-1].out_channels
        self.head = make_linear(channels, num_classes, _INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.pool = MaxPool(3, 2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The last maps of each resolution: of the third and fifth convolution, then of each group of modules."""
        first, state = _in_turn(self.stem[:3], image, state)  # 147 147 64, of an image of 299x299
        second, state = _in_turn(self.stem[3:], self.pool(first), state)  # 71 71 192
        fifth, state = _in_turn(self.mixed5, self.pool(second), state)  # 35 35 288
        sixth, state = _in_turn(self.mixed6, fifth, state)  # 17 17 768
        seventh, state = _in_turn(self.mixed7, sixth, state)  # 8 8 2048
        return (first, second, fifth, sixth, seventh), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or the means of its last maps."""
        maps, state = self.features(image, state, key=key)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _stage(in_channels: int, rows: tuple[tuple[tuple[Branch, ...], int], ...], *, key: Key) -> tuple[Mixed, ...]:
    """Modules in a row."""
    modules, channels = [], in_channels
    for (branches, pooled), each in zip(rows, jax.random.split(key, len(rows)), strict=True):
        modules.append(Mixed(channels, branches, pooled, key=each))
        channels = modules[-1].out_channels
    return tuple(modules)


def _in_turn(
    parts: tuple[ConvNorm | Mixed, ...], x: Image, state: eqx.nn.State
) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
    for part in parts:
        x, state = part(x, state)
    return x, state


variants = {
    "inception_v3": Variant(
        make=InceptionV3,
        input=(299, 299, 3),
        num_classes=1000,
        # Torchvision's 27_161_264 counts its auxiliary classifier, 3_326_696 more.
        params=23_834_568,
        source="https://arxiv.org/abs/1512.00567",
        task="imagenet",
        smallest=75,
        strides=(2, 4, 8, 16, 32),
        torch_twin="inception_v3",
    ),
}
