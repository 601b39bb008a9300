"""Network in Network, Lin et al. 2014: 1x1 convolutions, and scores as means of maps instead of dense layers."""

import equinox as eqx
import jax
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from ..layers import AvgPool, Conv, Dropout, MaxPool, global_avg_pool, keys_for
from ..types import Classifier, Image, Key, Logits, Maps, Variant

_INIT = normal(0.05)


class NiN(Classifier):
    """Three stages of a convolution and two 1x1 ones, all with ReLU, the last giving a map a class (section 3; in the
    authors' widths for CIFAR-10).

    Stages are joined by 3x3 pooling with stride 2, of maxima and then of means, which at the far edges reaches past the
    map, as in the authors' Caffe. Weights start as theirs: normal with deviation .05, biases zero.

    **Arguments:**

    - `dropout_rate`: of what the two poolings between the stages give.
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
            _mlpconv(in_channels, 5, (192, 160, 96), first),
            _mlpconv(96, 5, (192, 192, 192), second),
            _mlpconv(192, 3, (192, 192), third),
        )
        self.head = Conv(192, num_classes, 1, weight_init=_INIT, key=head_key) if num_classes else eqx.nn.Identity()
        self.pools = (MaxPool(3, 2, ceil_mode=True), AvgPool(3, 2, ceil_mode=True))
        self.dropout = Dropout(dropout_rate)

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The 96, 192 and 192 maps that end the stages, before the next pooling; the last are those the head sees."""
        x = _through(self.stages[0], image)
        maps = (x,)
        keys = keys_for(key, 2, used=self.dropout.p > 0 and not self.dropout.inference)
        for pool, stage, each in zip(self.pools, self.stages[1:], keys, strict=True):
            x = _through(stage, self.dropout(pool(x), key=each))
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or the means of its last 192 maps."""
        maps, state = self.features(image, state, key=key)
        # ReLU changes nothing where the head is left out: the maps are behind one already.
        return global_avg_pool(jax.nn.relu(self.head(maps[-1]))), state


def _mlpconv(in_channels: int, kernel_size: int, widths: tuple[int, ...], key: Key) -> tuple[Conv, ...]:
    """A convolution that keeps the size, then 1x1 ones: the perceptron that slides over the map."""
    channels = (in_channels, *widths)
    sizes = (kernel_size, *[1] * (len(widths) - 1))
    return tuple(
        Conv(n_in, n_out, size, padding=size // 2, weight_init=_INIT, key=each)
        for n_in, n_out, size, each in zip(channels, widths, sizes, jax.random.split(key, len(widths)), strict=False)
    )


def _through(convs: tuple[Conv, ...], x: Image) -> Float[Array, "h w o"]:
    """The maps behind the last of `convs`, each with its ReLU."""
    for conv in convs:
        x = jax.nn.relu(conv(x))
    return x


variants = {
    "nin": Variant(
        make=NiN,
        input=(32, 32, 3),
        num_classes=10,
        params=966_986,
        # The paper (https://arxiv.org/abs/1312.4400) gives no widths; the authors' model does.
        source="https://gist.github.com/mavenlin/e56253735ef32c3c296d",
        task="cifar",
        smallest=4,
        strides=(1, 2, 4),
        recipe="nin",
    ),
}
