"""Network in Network (Lin et al. 2014): 1x1 convolutions, and global average pooling instead of dense layers."""

import equinox as eqx
import jax
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import AvgPool, Conv, Dropout, MaxPool, global_avg_pool, keys_for
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["NiN", "variants"]

_INIT = normal(0.05)


class NiN(eqx.Module):
    """Three stages of one convolution and two 1x1 convolutions, all with ReLU; the head has one map per class (section
    3, with the authors' widths for CIFAR-10).

    A 3x3 max pooling follows the first stage, and a 3x3 average pooling follows the second stage. Both have stride 2,
    and their last windows extend past the map, as in Caffe. As in the authors' code, initial weights are normal with
    standard deviation 0.05, and biases start at zero.

    **Arguments:**

    - `dropout_rate`: dropout rate after each of the two poolings.
    """

    stages: tuple[tuple[Conv, ...], ...]
    head: Conv | eqx.nn.Identity
    pools: tuple[MaxPool, AvgPool]
    dropout: Dropout

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        dropout_rate: float | int = 0.5,
        *,
        key: Key,
    ):
        first, second, third, head_key = jax.random.split(key, 4)
        self.stages = (
            _make_mlpconv(in_channels, 5, (192, 160, 96), first),
            _make_mlpconv(96, 5, (192, 192, 192), second),
            _make_mlpconv(192, 3, (192, 192), third),
        )
        self.head = Conv(192, num_classes, 1, weight_init=_INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.pools = (MaxPool(3, 2, ceil_mode=True), AvgPool(3, 2, ceil_mode=True))
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each stage before pooling, with 96, 192 and 192 channels."""
        x = _apply_stage(self.stages[0], image)
        maps = (x,)
        keys = keys_for(key, 2, used=self.dropout.p > 0 and not self.dropout.inference)
        for pool, stage, dropout_key in zip(self.pools, self.stages[1:], keys, strict=True):
            x = _apply_stage(stage, self.dropout(pool(x), key=dropout_key))
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 192 pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        # Without a head this ReLU changes nothing: the maps already come from a ReLU.
        return global_avg_pool(jax.nn.relu(self.head(maps[-1]))), state


def _make_mlpconv(in_channels: int, kernel_size: int, widths: tuple[int, ...], key: Key) -> tuple[Conv, ...]:
    """Makes a convolution that keeps the size, then 1x1 convolutions (the paper's "mlpconv", section 3.1)."""
    channels = (in_channels, *widths)
    sizes = (kernel_size, *[1] * (len(widths) - 1))
    keys = jax.random.split(key, len(widths))
    return tuple(
        Conv(n_in, n_out, size, padding=size // 2, weight_init=_INIT, key=conv_key)
        for n_in, n_out, size, conv_key in zip(channels, widths, sizes, keys, strict=False)
    )


def _apply_stage(convs: tuple[Conv, ...], x: Image) -> Float[Array, "h w o"]:
    for conv in convs:
        x = jax.nn.relu(conv(x))
    return x


variants = {
    "nin": Variant(
        make=NiN,
        input=(32, 32, 3),
        num_classes=10,
        params=966_986,
        # The paper (https://arxiv.org/abs/1312.4400) does not give the widths; the authors' model does.
        source="https://gist.github.com/mavenlin/e56253735ef32c3c296d",
        task="cifar",
        smallest=4,
        strides=(1, 2, 4),
        recipe="nin",
    ),
}
