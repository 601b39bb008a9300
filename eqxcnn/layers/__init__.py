"""What the architectures are made of, channels last, for one image. `Dropout` and `LayerNorm` are Equinox's own."""

from equinox.nn import Dropout, LayerNorm

from .conv import Conv
from .conv_norm import ConvNorm
from .drop import DropPath, drop_path_rates, keys_for
from .flatten import flatten_for
from .linear import linear
from .norm import BatchNorm
from .pool import AdaptiveAvgPool, AvgPool, MaxPool, global_avg_pool, global_max_pool
from .squeeze_excite import SqueezeExcite
from .widths import round_channels

__all__ = [
    "AdaptiveAvgPool",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvNorm",
    "DropPath",
    "Dropout",
    "LayerNorm",
    "MaxPool",
    "SqueezeExcite",
    "drop_path_rates",
    "flatten_for",
    "global_avg_pool",
    "global_max_pool",
    "keys_for",
    "linear",
    "round_channels",
]
