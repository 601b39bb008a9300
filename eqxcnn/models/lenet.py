"""LeNet-5 in the form taught today: ReLU and max pooling instead of the paper's tanh and trainable average pooling."""

import equinox as eqx
import jax

from ..layers import Conv, Linear, MaxPool, flatten_for
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["LeNet", "variants"]


class LeNet(eqx.Module):
    """Two 5x5 convolutions and three dense layers (LeCun et al. 1998, section II.B)."""

    conv1: Conv
    conv2: Conv
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, image_size: tuple[int, int] = (28, 28), *, key: Key
    ):
        keys = jax.random.split(key, 5)
        height, width = (((side // 2) - 4) // 2 for side in image_size)
        self.conv1 = Conv(in_channels, 6, 5, padding="SAME", key=keys[0])
        self.conv2 = Conv(6, 16, 5, padding="VALID", key=keys[1])
        self.fc1 = Linear(16 * height * width, 120, key=keys[2])
        self.fc2 = Linear(120, 84, key=keys[3])
        self.head = Linear(84, num_classes, key=keys[4]) if num_classes else eqx.nn.Identity()
        self.pool = MaxPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each pooling, with 6 and 16 channels."""
        first = self.pool(jax.nn.relu(self.conv1(image)))  # h/2 w/2 6
        second = self.pool(jax.nn.relu(self.conv2(first)))  # h/4-2 w/4-2 16
        return (first, second), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 84 features if `num_classes=0`."""
        (_, maps), state = self.features(image, state, key=key)
        x = jax.nn.relu(self.fc1(flatten_for(self.fc1, maps)))
        x = jax.nn.relu(self.fc2(x))
        return self.head(x), state


variants = {
    "lenet": Variant(
        make=LeNet,
        input=(28, 28, 1),
        num_classes=10,
        params=61_706,
        source="http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
        task="mnist",
        smallest=12,
        strides=(2, 4),
        recipe="lenet",
    ),
}
