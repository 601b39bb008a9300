"""SqueezeNet (Iandola et al. 2016): AlexNet's accuracy with 50 times fewer parameters."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import Conv, Dropout, MaxPool, global_avg_pool
from ..layers.initializers import he_uniform
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["Fire", "SqueezeNet", "variants"]


class Fire(eqx.Module):
    """A 1x1 convolution to `squeezed` channels, then parallel 1x1 and 3x3 convolutions, each with four times as many
    channels (section 3.2)."""

    squeeze: Conv
    expand1x1: Conv
    expand3x3: Conv

    def __init__(self, in_channels: int, squeezed: int, *, key: Key):
        keys = jax.random.split(key, 3)
        self.squeeze = Conv(in_channels, squeezed, 1, weight_init=he_uniform, key=keys[0])
        self.expand1x1 = Conv(squeezed, 4 * squeezed, 1, weight_init=he_uniform, key=keys[1])
        self.expand3x3 = Conv(squeezed, 4 * squeezed, 3, padding=1, weight_init=he_uniform, key=keys[2])

    def __call__(self, image: Image) -> Float[Array, "h w o"]:
        """Returns maps `[h w 8*squeezed]`."""
        x = jax.nn.relu(self.squeeze(image))
        return jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], axis=-1))


_Layer = Conv | eqx.nn.Lambda | MaxPool | Fire


class SqueezeNet(eqx.Module):
    """A strided convolution, three stages of fire modules, a 1x1 convolution as the head, and global average pooling
    (table 1).

    As in the authors' code, initial weights are He uniform, but normal with standard deviation 0.01 in the head; biases
    start at zero.

    **Arguments:**

    - `stem`: output channels and kernel size of the first convolution.
    - `squeezed`: for each stage, the `squeezed` channels of its fire modules; a module outputs eight times as many.
    - `dropout_rate`: dropout rate before the head.
    """

    #: The first convolution, ReLU, poolings and fire modules; indices match torch's `features`.
    layers: tuple[_Layer, ...]
    head: Conv | eqx.nn.Identity
    dropout: Dropout

    def __init__(
        self,
        stem: tuple[int, int],
        squeezed: tuple[tuple[int, ...], ...],
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.5,
        *,
        key: Key,
    ):
        stem_key, head_key, fire_key = jax.random.split(key, 3)
        keys = iter(jax.random.split(fire_key, sum(map(len, squeezed))))
        channels, kernel_size = stem
        first = Conv(
            in_channels, channels, kernel_size, stride=2, padding="VALID", weight_init=he_uniform, key=stem_key
        )
        layers: list[_Layer] = [first, eqx.nn.Lambda(jax.nn.relu)]
        for stage in squeezed:
            layers.append(MaxPool(3, 2, ceil_mode=True))
            for width in stage:
                layers.append(Fire(channels, width, key=next(keys)))
                channels = 8 * width
        self.layers = tuple(layers)
        self.head = (
            Conv(channels, num_classes, 1, weight_init=normal(0.01), key=head_key) if num_classes else eqx.nn.Identity()
        )
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of the first convolution and of each stage, before pooling."""
        maps, x = (), image
        for layer in self.layers:
            if isinstance(layer, MaxPool):
                maps += (x,)
            x = layer(x)
        return (*maps, x), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        # Without a head this ReLU changes nothing: the maps already come from a ReLU.
        return global_avg_pool(jax.nn.relu(self.head(self.dropout(maps[-1], key=key)))), state


variants = {
    "squeezenet1_0": Variant(
        make=partial(SqueezeNet, (96, 7), ((16, 16, 32), (32, 48, 48, 64), (64,))),
        input=(224, 224, 3),
        num_classes=1000,
        params=1_248_424,
        source="https://arxiv.org/abs/1602.07360",
        task="imagenet",
        smallest=21,
        strides=(2, 4, 8, 16),
        torch_twin="squeezenet1_0",
    ),
    "squeezenet1_1": Variant(
        make=partial(SqueezeNet, (64, 3), ((16, 16), (32, 32), (48, 48, 64, 64))),
        input=(224, 224, 3),
        num_classes=1000,
        params=1_235_496,
        source="https://github.com/forresti/SqueezeNet/tree/master/SqueezeNet_v1.1",
        task="imagenet",
        smallest=17,
        strides=(2, 4, 8, 16),
        recipe="squeezenet1_1_catsdogs",
        torch_twin="squeezenet1_1",
    ),
}
