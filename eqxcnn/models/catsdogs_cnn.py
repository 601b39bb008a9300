"""The three-convolution network that tutorials train on photographs of cats and dogs."""

from itertools import pairwise

import equinox as eqx
import jax
from jax.nn.initializers import lecun_normal

from ..errors import InputError
from ..layers import Conv, MaxPool, flatten_for, linear
from ..types import Classifier, Image, Key, Logits, Maps, Variant

#: Flax's own for convolutions and dense layers.
_INIT = lecun_normal()


class CatsDogsCNN(Classifier):
    """3x3 convolutions, each followed by ReLU and 2x2 max pooling, then a hidden dense layer."""

    convs: tuple[Conv, ...]
    fc1: eqx.nn.Linear
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: MaxPool

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        image_size: tuple[int, int] = (128, 128),
        widths: tuple[int, ...] = (32, 64, 128),
        hidden: int = 128,
        *,
        key: Key,
    ):
        height, width = (side // 2 ** len(widths) for side in image_size)
        if not widths or min(height, width) < 1:
            raise InputError(
                f"`widths` (={widths}) must name one convolution or more, and each halves the image "
                f"({image_size[0]}x{image_size[1]}): give fewer or a larger `image_size`"
            )
        *keys, fc_key, head_key = jax.random.split(key, len(widths) + 2)
        self.convs = tuple(
            Conv(n_in, n_out, 3, padding="SAME", weight_init=_INIT, key=each)
            for (n_in, n_out), each in zip(pairwise((in_channels, *widths)), keys, strict=True)
        )
        self.fc1 = linear(widths[-1] * height * width, hidden, _INIT, key=fc_key)
        self.head = linear(hidden, num_classes, _INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.pool = MaxPool(2)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The maps behind each pooling: `[h/2 w/2 32]`, `[h/4 w/4 64]`, `[h/8 w/8 128]`."""
        maps, x = (), image
        for conv in self.convs:
            x = self.pool(jax.nn.relu(conv(x)))
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its 128 features."""
        maps, state = self.features(image, state, key=key)
        return self.head(jax.nn.relu(self.fc1(flatten_for(self.fc1, maps[-1])))), state


variants = {
    "catsdogs_cnn": Variant(
        make=CatsDogsCNN,
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
