"""The two-convolution network of Flax's MNIST example, which many JAX tutorials train on MNIST and on CIFAR-10."""

import equinox as eqx
import jax
from jax.nn.initializers import lecun_normal

from ..layers import AvgPool, Conv, flatten_for, linear
from ..types import Classifier, Image, Key, Logits, Maps, Variant

#: Flax's own for convolutions and dense layers.
_INIT = lecun_normal()


class SimpleCNN(Classifier):
    """Two 3x3 convolutions, each followed by ReLU and 2x2 average pooling, then a hidden dense layer."""

    conv1: Conv
    conv2: Conv
    fc1: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: AvgPool

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: tuple[int, int] = (28, 28),
        widths: tuple[int, int] = (32, 64),
        hidden: int = 256,
        *,
        key: Key,
    ):
        keys = jax.random.split(key, 4)
        height, width = (side // 4 for side in image_size)
        self.conv1 = Conv(in_channels, widths[0], 3, padding="SAME", weight_init=_INIT, key=keys[0])
        self.conv2 = Conv(widths[0], widths[1], 3, padding="SAME", weight_init=_INIT, key=keys[1])
        self.fc1 = linear(widths[1] * height * width, hidden, _INIT, key=keys[2])
        self.head = linear(hidden, num_classes, _INIT, key=keys[3]) if num_classes else eqx.nn.Identity()
        self.pool = AvgPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The maps behind each pooling, `[h/2 w/2 32]` and `[h/4 w/4 64]`."""
        first = self.pool(jax.nn.relu(self.conv1(image)))
        second = self.pool(jax.nn.relu(self.conv2(first)))
        return (first, second), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its 256 features."""
        (_, maps), state = self.features(image, state, key=key)
        return self.head(jax.nn.relu(self.fc1(flatten_for(self.fc1, maps)))), state


_FLAX_EXAMPLE = "https://github.com/google/flax/blob/main/examples/mnist/train.py"
variants = {
    "mnist_cnn": Variant(
        make=SimpleCNN,
        input=(28, 28, 1),
        num_classes=10,
        params=824_458,
        source=_FLAX_EXAMPLE,
        task="mnist",
        smallest=4,
        strides=(2, 4),
        recipe="mnist_cnn",
    ),
    "cifar_cnn": Variant(
        make=SimpleCNN,
        input=(32, 32, 3),
        num_classes=10,
        params=1_070_794,
        source=_FLAX_EXAMPLE,
        task="cifar",
        smallest=4,
        strides=(2, 4),
        recipe="cifar_cnn",
    ),
}
