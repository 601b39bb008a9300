"""Inception v3: large kernels factorized into small or one-dimensional kernels (Szegedy et al. 2016, "Rethinking the
Inception architecture for computer vision"), in torchvision's form.

The auxiliary classifier, which is used in training only, is left out. Torchvision's 27,161,264 parameters are the
23,834,568 of this model and 3,326,696 of the auxiliary classifier, whose input is the 768 maps of `Mixed_6e`: 98,560 in
a 1x1 convolution to 128 channels, 2,459,136 in a 5x5 convolution to 768 channels (both with BatchNorm), and 769,000 in
a dense layer.
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
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["Branch", "InceptionV3", "Mixed", "Step", "variants"]

#: Torchvision truncates at 2, which is 20 standard deviations and has no effect.
_INIT = normal(0.1)
_conv_norm = partial(ConvNorm, weight_init=_INIT, eps=1e-3)

_Kernel: TypeAlias = int | tuple[int, int]
#: A convolution: output channels, kernel size. Or two parallel convolutions: output channels of each, kernel sizes.
Step: TypeAlias = tuple[int, _Kernel] | tuple[int, _Kernel, _Kernel]
#: The convolutions of one branch, in order.
Branch: TypeAlias = tuple[Step, ...]


class Mixed(eqx.Module):
    """Parallel branches of convolutions and one pooling branch, concatenated along channels.

    **Arguments:**

    - `branches`: the convolutions of each branch.
    - `pool_channels`: output channels of the pooling branch, a 3x3 average pooling and a 1x1 convolution. 0 makes a
      module that halves height and width: each branch ends with stride 2, and the pooling branch is a 3x3 max pooling.
    """

    branches: tuple[tuple[tuple[ConvNorm, ...], ...], ...]
    branch_pool: ConvNorm | None
    pool: AvgPool | MaxPool
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, branches: Sequence[Branch], pool_channels: int, *, key: Key):
        *keys, pool_key = jax.random.split(key, len(branches) + 1)
        self.branches = tuple(
            _make_branch(in_channels, steps, is_strided=not pool_channels, key=branch_key)
            for steps, branch_key in zip(branches, keys, strict=True)
        )
        self.branch_pool = _conv_norm(in_channels, pool_channels, 1, key=pool_key) if pool_channels else None
        self.pool = AvgPool(3, 1, 1) if pool_channels else MaxPool(3, 2)
        self.out_channels = (pool_channels or in_channels) + sum(_count_channels(steps[-1]) for steps in branches)

    def __call__(self, x: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns the maps of all branches, concatenated along channels, and the new state."""
        maps = []
        for branch in self.branches:
            out = x
            for step in branch:
                out, state = _apply_in_parallel(step, out, state)
            maps.append(out)
        out = self.pool(x)
        if self.branch_pool is not None:
            out, state = self.branch_pool(out, state)
        return jnp.concatenate((*maps, out), axis=-1), state


def _make_branch(in_channels: int, steps: Branch, *, is_strided: bool, key: Key) -> tuple[tuple[ConvNorm, ...], ...]:
    """Makes the convolutions of one branch; with `is_strided`, the last convolution has stride 2 and no padding."""
    convs, channels = [], in_channels
    for index, (step, step_key) in enumerate(zip(steps, jax.random.split(key, len(steps)), strict=True)):
        width, *kernel_sizes = step
        make = partial(_conv_norm, channels, width)
        if is_strided and index == len(steps) - 1:
            make = partial(make, stride=2, padding="VALID")
        keys = jax.random.split(step_key, len(kernel_sizes))
        convs.append(tuple(make(size, key=conv_key) for size, conv_key in zip(kernel_sizes, keys, strict=True)))
        channels = _count_channels(step)
    return tuple(convs)


def _count_channels(step: Step) -> int:
    """Returns the number of output channels of a step, summed over parallel convolutions."""
    width, *kernel_sizes = step
    return width * len(kernel_sizes)


def _apply_in_parallel(
    convs: tuple[ConvNorm, ...], x: Image, state: eqx.nn.State
) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
    maps = []
    for conv in convs:
        out, state = conv(x, state)
        maps.append(out)
    return (jnp.concatenate(maps, axis=-1) if len(maps) > 1 else maps[0]), state


#: On 35x35 maps: one branch has a 5x5 kernel, another branch has two 3x3 kernels instead (figure 5).
_FIGURE5: tuple[Branch, ...] = (((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)))
#: From 35x35 to 17x17 maps (section 5, figure 10).
_REDUCTION6: tuple[Branch, ...] = (((384, 3),), ((64, 1), (96, 3), (96, 3)))
#: From 17x17 to 8x8 maps.
_REDUCTION7: tuple[Branch, ...] = (((192, 1), (320, 3)), ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)))
#: On 8x8 maps: parallel 1x3 and 3x1 kernels (figure 7).
_FIGURE7: tuple[Branch, ...] = (
    ((320, 1),),
    ((384, 1), (384, (1, 3), (3, 1))),
    ((448, 1), (384, 3), (384, (1, 3), (3, 1))),
)


def _figure6(width: int) -> tuple[Branch, ...]:
    """Returns the branches of a module on 17x17 maps, with `width` channels inside the branches (figure 6).

    Each 7x7 kernel is factorized into a 1x7 kernel and a 7x1 kernel.
    """
    horizontal, vertical = (width, (1, 7)), (width, (7, 1))
    return (
        ((192, 1),),
        ((width, 1), horizontal, (192, (7, 1))),
        ((width, 1), vertical, horizontal, vertical, (192, (1, 7))),
    )


#: `branches` and `pool_channels` of the modules at each resolution (table 1).
_STAGES: tuple[tuple[tuple[tuple[Branch, ...], int], ...], ...] = (
    ((_FIGURE5, 32), (_FIGURE5, 64), (_FIGURE5, 64)),
    ((_REDUCTION6, 0), *((_figure6(width), 192) for width in (128, 160, 160, 192))),
    ((_REDUCTION7, 0), (_FIGURE7, 192), (_FIGURE7, 192)),
)


class InceptionV3(eqx.Module):
    """Five convolutions and eleven `Mixed` modules (table 1), for 299x299 images.

    As in torchvision, without the auxiliary classifier. Initial weights are normal with standard deviation 0.1.
    Torchvision's trained weights expect images normalized with mean 0.5 and standard deviation 0.5 per channel.
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
        self.mixed5 = _make_stage(192, _STAGES[0], key=key5)
        self.mixed6 = _make_stage(self.mixed5[-1].out_channels, _STAGES[1], key=key6)
        self.mixed7 = _make_stage(self.mixed6[-1].out_channels, _STAGES[2], key=key7)
        channels = self.mixed7[-1].out_channels
        self.head = make_linear(channels, num_classes, _INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.pool = MaxPool(3, 2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution: the outputs of convolutions 3 and 5, and of each module stage."""
        first, state = _apply_in_sequence(self.stem[:3], image, state)  # 147 147 64 for a 299x299 image
        second, state = _apply_in_sequence(self.stem[3:], self.pool(first), state)  # 71 71 192
        fifth, state = _apply_in_sequence(self.mixed5, self.pool(second), state)  # 35 35 288
        sixth, state = _apply_in_sequence(self.mixed6, fifth, state)  # 17 17 768
        seventh, state = _apply_in_sequence(self.mixed7, sixth, state)  # 8 8 2048
        return (first, second, fifth, sixth, seventh), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _make_stage(in_channels: int, rows: tuple[tuple[tuple[Branch, ...], int], ...], *, key: Key) -> tuple[Mixed, ...]:
    modules, channels = [], in_channels
    for (branches, pool_channels), module_key in zip(rows, jax.random.split(key, len(rows)), strict=True):
        modules.append(Mixed(channels, branches, pool_channels, key=module_key))
        channels = modules[-1].out_channels
    return tuple(modules)


def _apply_in_sequence(
    layers: tuple[ConvNorm | Mixed, ...], x: Image, state: eqx.nn.State
) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
    for layer in layers:
        x, state = layer(x, state)
    return x, state


variants = {
    "inception_v3": Variant(
        make=InceptionV3,
        input=(299, 299, 3),
        num_classes=1000,
        # Torchvision's 27_161_264 also counts the 3_326_696 of the auxiliary classifier.
        params=23_834_568,
        source="https://arxiv.org/abs/1512.00567",
        task="imagenet",
        smallest=75,
        strides=(2, 4, 8, 16, 32),
        torch_twin="inception_v3",
    ),
}
