"""The plain CNNs of tutorials: a few 3x3 convolutions, each with pooling, and one hidden dense layer."""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax

from ..errors import InputError
from ..layers import AvgPool, Conv, MaxPool, flatten_for, make_linear
from ..layers.initializers import lecun_normal
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["SimpleCNN", "variants"]


class SimpleCNN(eqx.Module):
    """3x3 convolutions, each followed by ReLU and 2x2 pooling, then a hidden dense layer.

    Initial weights are Lecun normal, as in Flax.

    **Arguments:**

    - `widths`: output channels of each convolution; each pooling halves height and width.
    - `hidden`: size of the hidden dense layer.
    - `pool`: the class of the pooling layers.

    **Raises:** `InputError` if `widths` is empty or too long for the image.
    """

    convs: tuple[Conv, ...]
    fc1: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: AvgPool | MaxPool

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: tuple[int, int] = (28, 28),
        widths: tuple[int, ...] = (32, 64),
        hidden: int = 256,
        pool: type[AvgPool] | type[MaxPool] = AvgPool,
        *,
        key: Key,
    ):
        height, width = (side // 2 ** len(widths) for side in image_size)
        if not widths or min(height, width) < 1:
            raise InputError(
                f"`widths` (={widths}) must have at least one number, and each number halves height and width of "
                f"the image ({image_size[0]}x{image_size[1]}): give fewer numbers or a larger `image_size`"
            )
        *keys, fc_key, head_key = jax.random.split(key, len(widths) + 2)
        self.convs = tuple(
            Conv(n_in, n_out, 3, padding="SAME", weight_init=lecun_normal, key=conv_key)
            for (n_in, n_out), conv_key in zip(pairwise((in_channels, *widths)), keys, strict=True)
        )
        self.fc1 = make_linear(widths[-1] * height * width, hidden, lecun_normal, key=fc_key)
        self.head = make_linear(hidden, num_classes, lecun_normal, key=head_key) if num_classes else eqx.nn.Identity()
        self.pool = pool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each pooling, `[h/2 w/2 widths[0]]`, `[h/4 w/4 widths[1]]` and so on."""
        maps, x = (), image
        for conv in self.convs:
            x = self.pool(jax.nn.relu(conv(x)))
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its hidden features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(jax.nn.relu(self.fc1(flatten_for(self.fc1, maps[-1])))), state


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
    "catsdogs_cnn": Variant(
        make=partial(SimpleCNN, widths=(32, 64, 128), hidden=128, pool=MaxPool),
        input=(128, 128, 3),
        num_classes=2,
        params=4_287_938,
        source="https://kambale.dev/build-cnn-in-jax",
        task="catsdogs",
        smallest=8,
        strides=(2, 4, 8),
        recipe="catsdogs_cnn",
    ),
}
