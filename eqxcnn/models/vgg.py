"""VGG (Simonyan and Zisserman 2015): 3x3 convolutions only, five poolings, and large dense layers."""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
from jax.nn.initializers import normal

from ..layers import AdaptiveAvgPool, BatchNorm, Conv, Dropout, MaxPool, keys_for, make_linear
from ..layers.initializers import he_normal_fan_out
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["VGG", "variants"]

_INIT = normal(0.01)
_WIDTHS = (64, 128, 256, 512, 512)

_Layer = Conv | BatchNorm | eqx.nn.Lambda | MaxPool


class VGG(eqx.Module):
    """Five stages of 3x3 convolutions with ReLU, each ending with 2x2 max pooling (section 2.1 and table 1).

    With hidden dense layers, the last maps are average-pooled to 7x7, so images of any size fit. Without hidden layers,
    the last maps are averaged to one vector for the head. Weights are initialized as in torchvision: convolutions
    with He normal values (fan-out), dense layers with normal values of standard deviation 0.01, and biases with zero.

    **Arguments:**

    - `depths`: number of convolutions of each stage; the widths are 64, 128, 256, 512 and 512.
    - `use_norm`: whether BatchNorm follows each convolution; convolutions have a bias in either case.
    - `hidden`: sizes of the hidden dense layers.
    - `dropout_rate`: dropout rate after each hidden layer, or after the average pooling if there are no hidden layers.
    """

    #: Convolutions, BatchNorms if any, ReLUs and poolings; indices match torch's `features`.
    layers: tuple[_Layer, ...]
    hidden: tuple[eqx.nn.Linear, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    pool: AdaptiveAvgPool
    dropout: Dropout

    def __init__(
        self,
        depths: tuple[int, int, int, int, int],
        use_norm: bool = False,
        hidden: tuple[int, ...] = (4096, 4096),
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.5,
        *,
        key: Key,
    ):
        conv_key, head_key, *keys = jax.random.split(key, len(hidden) + 2)
        side = 7 if hidden else 1
        sizes = (side * side * _WIDTHS[-1], *hidden)
        self.layers = _make_layers(depths, use_norm, in_channels, conv_key)
        self.hidden = tuple(
            make_linear(n_in, n_out, _INIT, key=layer_key)
            for (n_in, n_out), layer_key in zip(pairwise(sizes), keys, strict=True)
        )
        self.head = make_linear(sizes[-1], num_classes, _INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.pool = AdaptiveAvgPool(side)
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each pooling, `[h/2 w/2 64]` to `[h/32 w/32 512]`."""
        maps, x = (), image
        for layer in self.layers:
            if isinstance(layer, BatchNorm):
                x, state = layer(x, state)
            else:
                x = layer(x)
            if isinstance(layer, MaxPool):
                maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its last hidden features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        x = self.pool(maps[-1]).ravel()
        if not self.hidden:
            return self.head(self.dropout(x, key=key)), state
        keys = keys_for(key, len(self.hidden), used=self.dropout.p > 0 and not self.dropout.inference)
        for layer, dropout_key in zip(self.hidden, keys, strict=True):
            x = self.dropout(jax.nn.relu(layer(x)), key=dropout_key)
        return self.head(x), state


def _make_layers(depths: tuple[int, ...], use_norm: bool, in_channels: int, key: Key) -> tuple[_Layer, ...]:
    layers, keys = [], iter(jax.random.split(key, sum(depths)))
    for depth, width in zip(depths, _WIDTHS, strict=True):
        for _ in range(depth):
            layers.append(Conv(in_channels, width, 3, padding=1, weight_init=he_normal_fan_out, key=next(keys)))
            if use_norm:
                layers.append(BatchNorm(width))
            layers.append(eqx.nn.Lambda(jax.nn.relu))
            in_channels = width
        layers.append(MaxPool(2))
    return tuple(layers)


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
#: The numbers of parameters per depth: without BatchNorm, with BatchNorm, and in the CIFAR-10 variant, which has
#: BatchNorm and only one dense layer.
_PARAMS = {
    11: (132_863_336, 132_868_840, 9_231_114),
    13: (133_047_848, 133_053_736, 9_416_010),
    16: (138_357_544, 138_365_992, 14_728_266),
    19: (143_667_240, 143_678_248, 20_040_522),
}
variants = {
    f"vgg{depth}{'_bn' * use_norm}": Variant(
        make=partial(VGG, depths, use_norm),
        input=(224, 224, 3),
        num_classes=1000,
        params=_PARAMS[depth][use_norm],
        source="https://arxiv.org/abs/1409.1556",
        task="imagenet",
        smallest=32,
        strides=(2, 4, 8, 16, 32),
        torch_twin=f"vgg{depth}{'_bn' * use_norm}",
    )
    for depth, depths in _DEPTHS.items()
    for use_norm in (False, True)
} | {
    f"vgg{depth}_bn_cifar": Variant(
        make=partial(VGG, depths, use_norm=True, hidden=(), dropout_rate=0.0),
        input=(32, 32, 3),
        num_classes=10,
        params=_PARAMS[depth][2],
        source="https://github.com/kuangliu/pytorch-cifar/blob/master/models/vgg.py",
        task="cifar",
        smallest=32,
        strides=(2, 4, 8, 16, 32),
        recipe="vgg16_bn_cifar" if depth == 16 else None,
    )
    for depth, depths in _DEPTHS.items()
}
