"""What the architectures are made of, channels last, for one image. `Dropout` is Equinox's own."""

from equinox.nn import Dropout

from .conv import Conv
from .drop import DropPath
from .flatten import flatten_for
from .linear import linear
from .norm import BatchNorm
from .pool import AvgPool, MaxPool, global_avg_pool, global_max_pool

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Conv",
    "DropPath",
    "Dropout",
    "MaxPool",
    "flatten_for",
    "global_avg_pool",
    "global_max_pool",
    "linear",
]
