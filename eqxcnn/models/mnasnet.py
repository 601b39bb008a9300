"""MNASNet-B1 (Tan et al. 2019), which has no squeeze-and-excitation, at torchvision's four widths."""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax

from ..layers import ConvNorm, Dropout, global_avg_pool, make_linear, round_channels
from ..layers.blocks.inverted_residual import InvertedResidual, stage_ends
from ..layers.initializers import he_normal_fan_out, kaiming_uniform_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["MNASNet", "variants"]

#: Weight of the new batch in the running statistics; the published code keeps 0.9997 of the old statistics.
_MOMENTUM = 1 - 0.9997
#: For each stage: expansion, kernel size, channels, blocks, stride of the first block.
_STAGES = ((3, 3, 24, 3, 2), (3, 5, 40, 3, 2), (6, 5, 80, 3, 2), (6, 3, 96, 2, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1))
_LAST_CHANNELS = 1280


class MNASNet(eqx.Module):
    """A stem with a depthwise separable convolution, then six stages of inverted residuals with 3x3 and 5x5 kernels,
    found by a search that measured latency on a phone (Tan et al. 2019, figure 7; B1 is in the published code).

    Convolutions are initialized with He normal values (fan-out), and the head with uniform values of variance
    1 / num_classes, as in torchvision.

    **Arguments:**

    - `width`: factor on all channel counts but the last (1280); the products are rounded to multiples of eight.
    """

    stem: tuple[ConvNorm, ConvNorm, ConvNorm]
    stages: tuple[tuple[InvertedResidual, ...], ...]
    last: ConvNorm
    dropout: Dropout
    head: eqx.nn.Linear | eqx.nn.Identity
    ends: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        width: float | int = 1,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        stem_key, last_key, head_key, *keys = jax.random.split(key, len(_STAGES) + 3)
        make = partial(ConvNorm, momentum=_MOMENTUM, weight_init=he_normal_fan_out)
        first, *widths = (round_channels(n * width) for n in (32, 16, *(channels for _, _, channels, _, _ in _STAGES)))
        first_key, depthwise_key, narrow_key = jax.random.split(stem_key, 3)
        self.stem = (
            make(in_channels, first, 3, 2, key=first_key),
            make(first, first, 3, groups=first, key=depthwise_key),
            make(first, widths[0], 1, activation=None, key=narrow_key),
        )
        self.stages = tuple(
            _make_stage(expansion, kernel_size, n_in, n_out, blocks, stride, key=stage_key)
            for (expansion, kernel_size, _, blocks, stride), (n_in, n_out), stage_key in zip(
                _STAGES, pairwise(widths), keys, strict=True
            )
        )
        self.last = make(widths[-1], _LAST_CHANNELS, 1, key=last_key)
        self.dropout = Dropout(dropout_rate)
        init = kaiming_uniform_fan_out
        self.head = make_linear(_LAST_CHANNELS, num_classes, init, key=head_key) if num_classes else eqx.nn.Identity()
        self.ends = stage_ends([2, *(stride for *_, stride in _STAGES)])

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution, `[h/2 w/2 16]` to `[h/32 w/32 1280]` for a width factor of 1."""
        maps, x = (), image
        parts = (self.stem, *self.stages[:-1], (*self.stages[-1], self.last))
        for index, layers in enumerate(parts):
            for layer in layers:
                x, state = layer(x, state)
            maps += (x,) if index in self.ends else ()
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def _make_stage(
    expansion: int, kernel_size: int, in_channels: int, out_channels: int, blocks: int, first_stride: int, *, key: Key
) -> tuple[InvertedResidual, ...]:
    """Makes the blocks of a stage; only the first block applies the stride and changes the channel count."""
    shapes = ((in_channels, first_stride), *((out_channels, 1),) * (blocks - 1))
    return tuple(
        InvertedResidual(n, out_channels, n * expansion, kernel_size, stride, momentum=_MOMENTUM, key=block_key)
        for (n, stride), block_key in zip(shapes, jax.random.split(key, blocks), strict=True)
    )


#: Width and parameters, as in torchvision.
_PARAMS = {"0_5": 2_218_512, "0_75": 3_170_208, "1_0": 4_383_312, "1_3": 6_282_256}
variants = {
    f"mnasnet{width}": Variant(
        make=partial(MNASNet, width=float(width.replace("_", "."))),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/1807.11626",
        task="imagenet",
        strides=(2, 4, 8, 16, 32),
        recipe="mnasnet0_5_catsdogs" if width == "0_5" else None,
        torch_twin=f"mnasnet{width}",
    )
    for width, params in _PARAMS.items()
}
