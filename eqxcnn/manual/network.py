"""A convolutional network with hand-derived gradients, and the value-and-gradient function that trains it."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import Conv, MaxPool, flatten_for
from ..types import BatchLogits, Image, Images, Key, Labels, Logits, Maps
from .conv import conv_backward, conv_forward
from .dense import dense_backward, dense_forward, flatten_backward, flatten_forward, relu_backward, relu_forward
from .loss import softmax_cross_entropy_backward, softmax_cross_entropy_forward
from .pool import max_pool_backward, max_pool_forward

__all__ = ["HandDerived", "Scratch", "value_and_grad"]


class HandDerived(eqx.Module):
    """A classifier with its own backward pass."""

    @abc.abstractmethod
    def forward(self, images: Images) -> tuple[BatchLogits, Any]:
        """Returns logits `[b classes]` and the caches for `backward`, which must be called in the same trace."""

    @abc.abstractmethod
    def backward(self, caches: Any, dlogits: BatchLogits) -> "HandDerived":
        """Returns the gradients with respect to the parameters, as a model; `dlogits` is the gradient with respect to
        the logits."""


def value_and_grad(
    model: HandDerived,
    state: eqx.nn.State,
    images: Images,
    labels: Labels,
    key: Key | None = None,
    label_smoothing: float = 0.0,
) -> tuple[tuple[Float[Array, ""], tuple[eqx.nn.State, BatchLogits]], HandDerived]:
    """Computes loss and gradients for a training step without automatic differentiation.

    **Arguments:**

    - `model`, `state`: the classifier, and its state, which is returned unchanged.
    - `images`, `labels`: normalized images `[b h w c]` and class indices `[b]`.
    - `key`: unused; the trainer passes a key to every value-and-gradient function.
    - `label_smoothing`: as for `softmax_cross_entropy_forward`.

    **Returns:** `((loss, (state, logits)), gradients)`; the loss is the mean over the batch.
    """
    logits, caches = model.forward(images)
    loss, cache = softmax_cross_entropy_forward(logits, labels, label_smoothing)
    return (loss, (state, logits)), model.backward(caches, softmax_cross_entropy_backward(cache))


class Scratch(HandDerived):
    """A 3x3 convolution, 2x2 max pooling and two dense layers: enough for MNIST, and short enough to derive in full.

    `__call__` runs the network on one image with ordinary layers. `forward` and `backward` run the same network, with
    the same parameters, on a batch with the functions of `eqxcnn.manual`.

    **Arguments:**

    - `filters`: output channels of the convolution.
    - `hidden`: size of the hidden dense layer.
    """

    conv1: Conv
    fc1: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: tuple[int, int] = (28, 28),
        filters: int = 5,
        hidden: int = 64,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 3)
        height, width = ((side - 2) // 2 for side in image_size)
        self.conv1 = Conv(in_channels, filters, 3, padding="VALID", key=keys[0])
        self.fc1 = eqx.nn.Linear(filters * height * width, hidden, key=keys[1])
        self.head = eqx.nn.Linear(hidden, num_classes, key=keys[2]) if num_classes else eqx.nn.Identity()
        self.pool = MaxPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of the pooling layer, `[h/2-1 w/2-1 filters]`."""
        return (self.pool(jax.nn.relu(self.conv1(image))),), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its `hidden` features if `num_classes=0`."""
        (maps,), state = self.features(image, state, key=key)
        return self.head(jax.nn.relu(self.fc1(flatten_for(self.fc1, maps)))), state

    def forward(self, images: Images) -> tuple[BatchLogits, Any]:
        """Returns logits `[b classes]` and the cache of each layer."""
        x, conv1 = conv_forward(images, *_weight_and_bias(self.conv1))
        x, relu1 = relu_forward(x)
        x, pool = max_pool_forward(x, 2)
        x, flat = flatten_forward(x)
        x, fc1 = dense_forward(x, *_weight_and_bias(self.fc1))
        x, relu2 = relu_forward(x)
        x, head = dense_forward(x, *_weight_and_bias(self.head))
        return x, (conv1, relu1, pool, flat, fc1, relu2, head)

    def backward(self, caches: Any, dlogits: BatchLogits) -> "Scratch":
        """Returns the gradients; calls the backward function of each layer of `forward`, in reverse order."""
        conv1, relu1, pool, flat, fc1, relu2, head = caches
        dx, *dhead = dense_backward(head, dlogits)
        dx = relu_backward(relu2, dx)
        dx, *dfc1 = dense_backward(fc1, dx)
        dx = flatten_backward(flat, dx)
        dx = max_pool_backward(pool, dx)
        dx = relu_backward(relu1, dx)
        # The gradient with respect to the images is not needed; `jit` removes its computation.
        _, *dconv1 = conv_backward(conv1, dx)
        # The leaves of the model are the layers' arrays in the order of the fields.
        return jax.tree.unflatten(jax.tree.structure(self), (*dconv1, *dfc1, *dhead))


def _weight_and_bias(layer: Conv | eqx.nn.Linear | eqx.nn.Identity) -> tuple[Array, Array]:
    if isinstance(layer, eqx.nn.Identity):
        raise InputError("`num_classes` (=0) must be at least 1 to train: a model without a head has no logits")
    assert layer.bias is not None
    return layer.weight, layer.bias
