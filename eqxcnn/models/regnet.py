"""RegNets: block widths grow linearly with depth and are quantized to one width per stage (Radosavovic et al. 2020).

https://arxiv.org/abs/2003.13678
"""

from collections import Counter
from functools import partial

import equinox as eqx
import jax
import numpy as np
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import ConvNorm, Dropout, SqueezeExcite, global_avg_pool, make_linear, round_channels
from ..layers.initializers import he_normal_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["RegNet", "XBlock", "stage_widths", "variants"]


class XBlock(eqx.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of equal width, plus a shortcut (figure 4; the Y form: end of section 4).

    **Arguments:**

    - `in_channels`, `out_channels`: input channels, and channels of all three convolutions.
    - `stride`: stride of the 3x3 convolution and of the shortcut.
    - `group_width`: channels per group of the 3x3 convolution.
    - `squeezed`: hidden channels of the squeeze-and-excitation after the 3x3 convolution; 0 for none.
    """

    a: ConvNorm
    b: ConvNorm
    se: SqueezeExcite | None
    c: ConvNorm
    proj: ConvNorm | None

    def __init__(self, in_channels: int, out_channels: int, stride: int, group_width: int, squeezed: int, *, key: Key):
        keys = jax.random.split(key, 5)
        bare = partial(ConvNorm, activation=None, weight_init=he_normal_fan_out)
        self.a = ConvNorm(in_channels, out_channels, 1, weight_init=he_normal_fan_out, key=keys[0])
        groups = out_channels // group_width
        self.b = ConvNorm(
            out_channels, out_channels, 3, stride, groups=groups, weight_init=he_normal_fan_out, key=keys[1]
        )
        self.se = SqueezeExcite(out_channels, squeezed, key=keys[2]) if squeezed else None
        self.c = bare(out_channels, out_channels, 1, key=keys[3])
        has_projection = stride != 1 or in_channels != out_channels
        self.proj = bare(in_channels, out_channels, 1, stride, key=keys[4]) if has_projection else None

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns maps `[h/stride w/stride out_channels]` and the new state."""
        x, state = self.a(image, state)
        x, state = self.b(x, state)
        x, state = self.c(x if self.se is None else self.se(x), state)
        shortcut, state = (image, state) if self.proj is None else self.proj(image, state)
        return jax.nn.relu(shortcut + x), state


class RegNet(eqx.Module):
    """A stem, then stages of `XBlock` whose widths follow from four numbers (Radosavovic et al. 2020, section 3.3).

    Convolutions are initialized with He normal values (fan-out), and the dense layer with normal values of standard
    deviation 0.01.

    **Arguments:**

    - `depth`, `w_0`, `w_a`, `w_m`: total number of blocks, width of the first block, growth per block, and ratio of
      stage widths; see `stage_widths`.
    - `group_width`: channels per group; at most the width of the stage.
    - `se_ratio`: hidden channels of each squeeze-and-excitation, as a fraction of the block's input channels; 0 for
      none.
    - `stem_width`: channels of the stem.

    **Raises:** `InputError` if `depth`, `w_0`, `w_a` or `w_m` is invalid.
    """

    stem: ConvNorm
    stages: tuple[tuple[XBlock, ...], ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout

    def __init__(
        self,
        depth: int,
        w_0: int,
        w_a: float | int,
        w_m: float | int,
        group_width: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        se_ratio: float | int = 0.0,
        stem_width: int = 32,
        dropout_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        widths = stage_widths(depth, w_0, w_a, w_m)
        stem_key, head_key, *keys = jax.random.split(key, 2 + depth)
        self.stem = ConvNorm(in_channels, stem_width, 3, 2, weight_init=he_normal_fan_out, key=stem_key)
        stages, channels = [], stem_width
        for quantized, blocks in widths.items():
            stage_group_width = min(group_width, quantized)
            width = round_channels(quantized, stage_group_width)
            stage = []
            for index in range(blocks):
                stride, squeezed = (1 if index else 2), round(se_ratio * channels)
                stage.append(XBlock(channels, width, stride, stage_group_width, squeezed, key=keys.pop(0)))
                channels = width
            stages.append(tuple(stage))
        self.stages = tuple(stages)
        self.dropout = Dropout(dropout_rate)
        self.head = make_linear(channels, num_classes, normal(0.01), key=head_key) if num_classes else eqx.nn.Identity()

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of the stem and of each stage."""
        x, state = self.stem(image, state)  # h/2 w/2 stem_width
        maps = (x,)
        for blocks in self.stages:
            for block in blocks:
                x, state = block(x, state)  # the first block of a stage halves h and w
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=None)
        return self.head(self.dropout(global_avg_pool(maps[-1]), key=key)), state


def stage_widths(depth: int, w_0: int, w_a: float | int, w_m: float | int) -> dict[int, int]:
    """Returns the number of blocks of each stage, keyed by the stage's width.

    The ideal width of block `j` is `w_0 + w_a * j` (equation 2). This width is written as `w_0 * w_m ** s` (equation
    3); then `s` is rounded to an integer (equation 4), and the resulting width is rounded to a multiple of 8. Blocks of
    equal width form a stage. `RegNet` later adjusts the widths to the group width.

    **Raises:** `InputError` if `depth`, `w_0`, `w_a` or `w_m` is invalid.
    """
    if depth < 1 or w_0 < 8 or w_0 % 8 or w_a < 0 or w_m <= 1:
        raise InputError(
            f"`depth` (={depth}) must be at least 1, `w_0` (={w_0}) a multiple of 8, `w_a` (={w_a}) at least 0 and "
            f"`w_m` (={w_m}) above 1"
        )
    steps = np.round(np.log1p(w_a * np.arange(depth) / w_0) / np.log(w_m))
    widths = np.round(w_0 * w_m**steps / 8) * 8
    return dict(Counter(widths.astype(int).tolist()))


#: depth, w_0, w_a, w_m, group width (figures 16 and 17, with torchvision's additional digits), parameters.
#: The widest Y network is from Goyal et al. 2021, https://arxiv.org/abs/2103.01988.
_X_ROWS = {
    "400mf": (22, 24, 24.48, 2.54, 16, 5_495_976),
    "800mf": (16, 56, 35.73, 2.28, 16, 7_259_656),
    "1_6gf": (18, 80, 34.01, 2.25, 24, 9_190_136),
    "3_2gf": (25, 88, 26.31, 2.25, 48, 15_296_552),
    "8gf": (23, 80, 49.56, 2.88, 120, 39_572_648),
    "16gf": (22, 216, 55.59, 2.1, 128, 54_278_536),
    "32gf": (23, 320, 69.86, 2.0, 168, 107_811_560),
}
_Y_ROWS = {
    "400mf": (16, 48, 27.89, 2.09, 8, 4_344_144),
    "800mf": (14, 56, 38.84, 2.4, 16, 6_432_512),
    "1_6gf": (27, 48, 20.71, 2.65, 24, 11_202_430),
    "3_2gf": (21, 80, 42.63, 2.66, 24, 19_436_338),
    "8gf": (17, 192, 76.82, 2.19, 56, 39_381_472),
    "16gf": (18, 200, 106.23, 2.48, 112, 83_590_140),
    "32gf": (20, 232, 115.89, 2.53, 232, 145_046_770),
    "128gf": (27, 456, 160.83, 2.52, 264, 644_812_894),
}
variants = {
    f"regnet_{form}_{name}": Variant(
        make=partial(RegNet, depth=depth, w_0=w_0, w_a=w_a, w_m=w_m, group_width=group_width, se_ratio=se_ratio),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2003.13678",
        task="imagenet",
        smallest=1,
        strides=(2, 4, 8, 16, 32),
        recipe="regnet_y_400mf_catsdogs" if (form, name) == ("y", "400mf") else None,
        torch_twin=f"regnet_{form}_{name}",
    )
    for form, rows, se_ratio in (("x", _X_ROWS, 0.0), ("y", _Y_ROWS, 0.25))
    for name, (depth, w_0, w_a, w_m, group_width, params) in rows.items()
}
