"""The All Convolutional Net (Springenberg et al. 2015): strided convolutions replace pooling."""

from functools import partial

import equinox as eqx
import jax

from ..layers import Conv, Dropout, global_avg_pool, keys_for
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["AllCNN", "variants"]


class AllCNN(eqx.Module):
    """The models of table 1, with each pooling replaced by a strided convolution (section 2 and table 2). ReLU follows
    every convolution. The head is a 1x1 convolution with one map per class; the score of a class is its map's mean.

    The last 3x3 convolution has no padding, so the averaged maps are 6x6 for a 32x32 image. Initial weights
    are He normal, biases zero; the paper does not specify an initialization.

    **Arguments:**

    - `convs`: `(out_channels, kernel_size, stride)` of each convolution but the last three, which are a 3x3 and a 1x1
      convolution with 192 channels, and the head.
    - `dropout_rate`: dropout rate of the output of each strided convolution.
    - `input_dropout_rate`: dropout rate of the image.
    """

    convs: tuple[Conv, ...]
    head: Conv | eqx.nn.Identity
    input_dropout: Dropout
    dropout: Dropout

    def __init__(
        self,
        convs: tuple[tuple[int, int, int], ...],
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        dropout_rate: float | int = 0.5,
        input_dropout_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        *keys, unpadded_key, last_key, head_key = jax.random.split(key, len(convs) + 3)
        layers = []
        for (out_channels, kernel_size, stride), conv_key in zip(convs, keys, strict=True):
            layers.append(Conv(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, key=conv_key))
            in_channels = out_channels
        layers.append(Conv(in_channels, 192, 3, padding="VALID", key=unpadded_key))
        layers.append(Conv(192, 192, 1, key=last_key))
        self.convs = tuple(layers)
        self.head = Conv(192, num_classes, 1, key=head_key) if num_classes else eqx.nn.Identity()
        self.input_dropout = Dropout(input_dropout_rate)
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the input of each strided convolution, and the input of the head."""
        strided = [conv.stride != (1, 1) for conv in self.convs]
        dropouts = (self.input_dropout, self.dropout)
        used = any(dropout.p > 0 and not dropout.inference for dropout in dropouts)
        first, *rest = keys_for(key, 1 + sum(strided), used=used)
        keys = iter(rest)
        maps, x = (), self.input_dropout(image, key=first)
        for conv, is_strided in zip(self.convs, strided, strict=True):
            if is_strided:
                maps += (x,)
                x = self.dropout(jax.nn.relu(conv(x)), key=next(keys))
            else:
                x = jax.nn.relu(conv(x))
        return (*maps, x), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 192 pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        # Without a head this ReLU changes nothing: the maps already come from a ReLU.
        return global_avg_pool(jax.nn.relu(self.head(maps[-1]))), state


#: For each model letter: `(out_channels, kernel_size, stride)` of each convolution, and the number of parameters,
#: summed over the layers of table 1. The paper rounds its counts (table 3) to 1.28, 1.35 and 1.4 million.
_MODELS = {
    "a": (((96, 5, 1), (96, 3, 2), (192, 5, 1), (192, 3, 2)), 1_254_250),
    "b": (((96, 5, 1), (96, 1, 1), (96, 3, 2), (192, 5, 1), (192, 1, 1), (192, 3, 2)), 1_300_618),
    "c": (((96, 3, 1), (96, 3, 1), (96, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2)), 1_369_738),
}
variants = {
    f"all_cnn_{letter}": Variant(
        make=partial(AllCNN, convs),
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source="https://arxiv.org/abs/1412.6806",
        task="cifar",
        smallest=9,
        strides=(1, 2, 4),
        recipe="all_cnn_c" if letter == "c" else None,
    )
    for letter, (convs, params) in _MODELS.items()
}
