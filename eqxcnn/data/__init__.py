"""Data sets as arrays: where rows come from, their decoding and its cache, and the order of batches."""

from .batches import Prefetch, balanced_order, epoch_order, eval_batches, hold_out, train_batches
from .dataset import DataSet, load, open_source
from .decode import decode_image
from .files import find_images
from .records import DataInfo, Split
from .sources import SOURCES, Source

__all__ = [
    "SOURCES",
    "DataInfo",
    "DataSet",
    "Prefetch",
    "Source",
    "Split",
    "balanced_order",
    "decode_image",
    "epoch_order",
    "eval_batches",
    "find_images",
    "hold_out",
    "load",
    "open_source",
    "train_batches",
]
