"""Data sets as arrays: the sources of rows, decoding, the cache of decoded images, and the order of batches."""

from ..images import Preprocess, decode_image
from .ahead import DecodeAhead
from .arrays import from_arrays
from .batches import Prefetch, TrainOrder, balanced_order, epoch_order, eval_batches, hold_out, train_batches
from .encoded import EncodedImages
from .files import find_images
from .named import load, open_source
from .own import as_data_set, from_dataset
from .records import DataInfo, DataSet, Split
from .sources import SOURCES, Source, register

__all__ = [
    "SOURCES",
    "DataInfo",
    "DataSet",
    "DecodeAhead",
    "EncodedImages",
    "Prefetch",
    "Preprocess",
    "Source",
    "Split",
    "TrainOrder",
    "as_data_set",
    "balanced_order",
    "decode_image",
    "epoch_order",
    "eval_batches",
    "find_images",
    "from_arrays",
    "from_dataset",
    "hold_out",
    "load",
    "open_source",
    "register",
    "train_batches",
]
