"""Layers for one channels-last image; callers `vmap` over the batch. `Dropout` and `LayerNorm` come from Equinox."""

from equinox.nn import Dropout, LayerNorm

from .attention import Attention
from .blocks.conv_norm import ConvNorm
from .blocks.squeeze_excite import SqueezeExcite
from .conv import Conv
from .drop_path import DropPath, drop_path_rates, keys_for
from .flatten import flatten_for
from .linear import Linear, make_linear
from .norm import BatchNorm
from .pool import AdaptiveAvgPool, AvgPool, MaxPool, global_avg_pool, global_max_pool
from .positions import each_position
from .widths import round_channels

__all__ = [
    "AdaptiveAvgPool",
    "Attention",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvNorm",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "SqueezeExcite",
    "drop_path_rates",
    "each_position",
    "flatten_for",
    "global_avg_pool",
    "global_max_pool",
    "keys_for",
    "make_linear",
    "round_channels",
]
