"""MobileNetV3 (Howard et al. 2019), small and large."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
from jax.nn.initializers import normal

from ..layers import ConvNorm, Dropout, SqueezeExcite, global_avg_pool, make_linear, round_channels
from ..layers.blocks.inverted_residual import InvertedResidual, stage_ends
from ..layers.initializers import he_normal_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["MobileNetV3", "Row", "variants"]

#: BatchNorm's settings in the reference (the momentum is in section 6.1.1).
_EPS, _MOMENTUM = 0.001, 0.01
_STEM_CHANNELS = 16


class Row(NamedTuple):
    """One block, as a row of tables 1 and 2 without the input column."""

    kernel_size: int
    hidden: int
    channels: int
    use_squeeze_excite: bool
    use_hard_swish: bool
    stride: int


_LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
_SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class MobileNetV3(eqx.Module):
    """Inverted residuals, global pooling and two dense layers (Howard et al. 2019, tables 1 and 2).

    The blocks come from an architecture search. Some have squeeze-and-excitation, and the deeper blocks use hard swish.

    Convolutions are initialized with He normal values (fan-out), and dense layers with normal values of standard
    deviation 0.01.

    **Arguments:**

    - `rows`: the blocks.
    - `hidden`: output size of the first dense layer.
    """

    #: Stem, blocks and the last 1x1 convolution.
    trunk: tuple[ConvNorm | InvertedResidual, ...]
    fc1: eqx.nn.Linear
    dropout: Dropout
    head: eqx.nn.Linear | eqx.nn.Identity
    ends: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        rows: tuple[Row, ...] = _LARGE,
        hidden: int = 1280,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        stem_key, last_key, fc_key, head_key, *keys = jax.random.split(key, len(rows) + 4)
        make = partial(
            ConvNorm, activation=jax.nn.hard_swish, eps=_EPS, momentum=_MOMENTUM, weight_init=he_normal_fan_out
        )
        widths = (_STEM_CHANNELS, *(row.channels for row in rows))
        last_channels = 6 * rows[-1].channels
        self.trunk = (
            make(in_channels, _STEM_CHANNELS, 3, 2, key=stem_key),
            *(_make_block(n_in, row, key=block_key) for n_in, row, block_key in zip(widths, rows, keys, strict=False)),
            make(rows[-1].channels, last_channels, 1, key=last_key),
        )
        init = normal(0.01)
        self.fc1 = make_linear(last_channels, hidden, init, key=fc_key)
        self.dropout = Dropout(dropout_rate)
        self.head = make_linear(hidden, num_classes, init, key=head_key) if num_classes else eqx.nn.Identity()
        self.ends = stage_ends([2, *(row.stride for row in rows), 1])

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the last map of each resolution, `[h/2 w/2 16]` to `[h/32 w/32 960]` in the large network."""
        maps, x = (), image
        for index, layer in enumerate(self.trunk):
            x, state = layer(x, state)
            maps += (x,) if index in self.ends else ()
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its hidden features if `num_classes=0`."""
        maps, state = self.features(image, state, key=None)
        x = jax.nn.hard_swish(self.fc1(global_avg_pool(maps[-1])))
        return self.head(self.dropout(x, key=key)), state


def _make_block(in_channels: int, row: Row, *, key: Key) -> InvertedResidual:
    block_key, gate_key = jax.random.split(key)
    squeezed = round_channels(row.hidden // 4)
    is_gated = row.use_squeeze_excite
    return InvertedResidual(
        in_channels,
        row.channels,
        None if row.hidden == in_channels else row.hidden,
        row.kernel_size,
        row.stride,
        SqueezeExcite(row.hidden, squeezed, gate=jax.nn.hard_sigmoid, key=gate_key) if is_gated else None,
        activation=jax.nn.hard_swish if row.use_hard_swish else jax.nn.relu,
        eps=_EPS,
        momentum=_MOMENTUM,
        key=block_key,
    )


_imagenet = partial(
    Variant,
    input=(224, 224, 3),
    num_classes=1000,
    source="https://arxiv.org/abs/1905.02244",
    task="imagenet",
    strides=(2, 4, 8, 16, 32),
)
variants = {
    "mobilenet_v3_small": _imagenet(
        make=partial(MobileNetV3, rows=_SMALL, hidden=1024),
        params=2_542_856,
        recipe="mobilenet_v3_small_catsdogs",
        torch_twin="mobilenet_v3_small",
    ),
    "mobilenet_v3_large": _imagenet(make=MobileNetV3, params=5_483_032, torch_twin="mobilenet_v3_large"),
}
