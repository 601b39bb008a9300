"""Data sets as arrays: where rows come from, their decoding and its cache, and the order of batches."""

from .batches import Prefetch as Prefetch
from .batches import epoch_order as epoch_order
from .batches import eval_batches as eval_batches
from .batches import hold_out as hold_out
from .batches import train_batches as train_batches
from .dataset import DataInfo as DataInfo
from .dataset import DataSet as DataSet
from .dataset import Split as Split
from .dataset import load as load
from .dataset import open_source as open_source
from .decode import decode_image as decode_image
from .sources import SOURCES as SOURCES
from .sources import Source as Source
