"""The network of `eqxcnn.manual`, with hand-derived gradients."""

from ..manual import Scratch
from ..types import Variant

__all__ = ["variants"]

variants = {
    "scratch": Variant(
        make=Scratch,
        input=(28, 28, 1),
        num_classes=10,
        params=54_844,
        source="https://github.com/ojayballer/CNN-from-scratch-using-JAX",
        task="mnist",
        smallest=4,
        strides=(2,),
        recipe="scratch",
    ),
}
