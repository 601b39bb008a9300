"""Convolutional networks with hand-derived gradients: each layer is a forward and a backward function on batches.

A forward function returns its output and a cache; the backward function takes the cache, and must be called in the same
trace. Nothing here uses automatic differentiation. `docs/theory.md` derives every backward function.
"""

from .conv import conv_backward, conv_forward
from .dense import dense_backward, dense_forward, flatten_backward, flatten_forward, relu_backward, relu_forward
from .loss import softmax_cross_entropy_backward, softmax_cross_entropy_forward
from .network import HandDerived, Scratch, value_and_grad
from .optimizer import Optimizer, sgd
from .pool import avg_pool_backward, avg_pool_forward, max_pool_backward, max_pool_forward
from .sliding_windows import Windows, windows

__all__ = [
    "HandDerived",
    "Optimizer",
    "Scratch",
    "Windows",
    "avg_pool_backward",
    "avg_pool_forward",
    "conv_backward",
    "conv_forward",
    "dense_backward",
    "dense_forward",
    "flatten_backward",
    "flatten_forward",
    "max_pool_backward",
    "max_pool_forward",
    "relu_backward",
    "relu_forward",
    "sgd",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
    "value_and_grad",
    "windows",
]
