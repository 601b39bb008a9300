"""AlexNet in its single-tower form (Krizhevsky 2014): for one device, and without local response normalization."""

import equinox as eqx
import jax

from ..layers import AdaptiveAvgPool, Conv, Dropout, Linear, MaxPool, keys_for
from ..layers.initializers import torch_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["AlexNet", "variants"]


class AlexNet(eqx.Module):
    """Five convolutions, three of them followed by overlapping max pooling, and three dense layers (Krizhevsky 2014,
    "One weird trick", section 5, with torchvision's widths).

    The last maps are average-pooled to 6x6, so images of any size fit the dense layers. Weights and dense biases are
    initialized as in torch, uniform up to 1 / sqrt(fan_in); biases of convolutions start at zero.

    **Arguments:**

    - `dropout_rate`: dropout rate of the input of each hidden dense layer.
    """

    conv1: Conv
    conv2: Conv
    conv3: Conv
    conv4: Conv
    conv5: Conv
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool
    adaptive_pool: AdaptiveAvgPool
    dropout: Dropout

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.5,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 8)
        self.conv1 = Conv(in_channels, 64, 11, stride=4, padding=2, weight_init=torch_uniform, key=keys[0])
        self.conv2 = Conv(64, 192, 5, padding=2, weight_init=torch_uniform, key=keys[1])
        self.conv3 = Conv(192, 384, 3, padding=1, weight_init=torch_uniform, key=keys[2])
        self.conv4 = Conv(384, 256, 3, padding=1, weight_init=torch_uniform, key=keys[3])
        self.conv5 = Conv(256, 256, 3, padding=1, weight_init=torch_uniform, key=keys[4])
        self.fc1 = Linear(6 * 6 * 256, 4096, key=keys[5])
        self.fc2 = Linear(4096, 4096, key=keys[6])
        self.head = Linear(4096, num_classes, key=keys[7]) if num_classes else eqx.nn.Identity()
        self.pool = MaxPool(3, 2)
        self.adaptive_pool = AdaptiveAvgPool(6)
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each pooling, with 64, 192 and 256 channels."""
        first = self.pool(jax.nn.relu(self.conv1(image)))  # h/8 w/8 64
        second = self.pool(jax.nn.relu(self.conv2(first)))  # h/16 w/16 192
        x = jax.nn.relu(self.conv3(second))
        x = jax.nn.relu(self.conv4(x))
        third = self.pool(jax.nn.relu(self.conv5(x)))  # h/32 w/32 256
        return (first, second, third), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 4096 features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        first, second = keys_for(key, 2, used=self.dropout.p > 0 and not self.dropout.inference)
        x = self.adaptive_pool(maps[-1]).ravel()
        x = jax.nn.relu(self.fc1(self.dropout(x, key=first)))
        x = jax.nn.relu(self.fc2(self.dropout(x, key=second)))
        return self.head(x), state


variants = {
    "alexnet": Variant(
        make=AlexNet,
        input=(224, 224, 3),
        num_classes=1000,
        params=61_100_840,
        source="https://arxiv.org/abs/1404.5997",
        task="imagenet",
        smallest=63,
        strides=(8, 16, 32),
        recipe="alexnet_catsdogs",
        torch_twin="alexnet",
    ),
}
