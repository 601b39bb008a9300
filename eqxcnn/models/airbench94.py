"""The network of airbench94, Jordan 2024: 94 % on CIFAR-10 in ten epochs, by a first layer that whitens patches."""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..layers import BatchNorm, Conv, Linear, MaxPool, global_max_pool
from ..layers.initializers import torch_uniform
from ..types import DataInitialized, Image, Images, Key, Logits, Maps, Variant

#: Torch's own for a convolution: uniform up to 1 / sqrt(fan_in).
_INIT = torch_uniform
#: Added to the variances that whitening divides by, so that it does not blow up what patches hardly ever show.
_WHITENING_EPS = 5e-4


class Block(eqx.Module):
    """Two 3x3 convolutions with BatchNorm and GELU, the first with 2x2 max pooling before its BatchNorm.

    BatchNorm has no scale, and its running statistics follow the batch's fast.
    """

    conv1: Conv
    norm1: BatchNorm
    conv2: Conv
    norm2: BatchNorm
    pool: MaxPool

    def __init__(self, in_channels: int, out_channels: int, dirac: bool, *, key: Key):
        first, second = jax.random.split(key)
        self.conv1 = _conv(in_channels, out_channels, dirac, first)
        self.norm1 = BatchNorm(out_channels, eps=1e-12, momentum=0.4, use_scale=False)
        self.conv2 = _conv(out_channels, out_channels, dirac, second)
        self.norm2 = BatchNorm(out_channels, eps=1e-12, momentum=0.4, use_scale=False)
        self.pool = MaxPool(2)

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """The maps `[h/2 w/2 out_channels]` and the new state."""
        x, state = self.norm1(self.pool(self.conv1(image)), state)
        x, state = self.norm2(self.conv2(_gelu(x)), state)
        return _gelu(x), state


class Airbench94(DataInitialized):
    """A 2x2 convolution that whitens patches, three blocks, and a dense layer without bias (Jordan 2024, section 3.1).

    The largest value of each last map goes to the dense layer: of all 3x3 for a 32x32 image. Convolutions of the blocks
    start as the identity on as many channels as they take, their other filters and the rest as torch's own, uniform up
    to 1 / sqrt(fan_in) (section 3.3); biases start at zero.

    The parameters number 1,971,640 with the 288 weights of `whiten`, which the published training leaves as they are
    first set; the scales of BatchNorm, which it leaves at one, are not there to be counted.

    **Arguments:**

    - `widths`: of the three blocks.
    - `score_scale`: what the dense layer's output is multiplied by.
    - `dirac`: whether convolutions start as the identity, as above, or wholly at random.
    """

    #: Random at first, as any convolution; `initialized_from` sets its weight. The published training does so
    #: before the first step and never changes it; the bias is trained at first.
    whiten: Conv
    blocks: tuple[Block, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    score_scale: float | int = eqx.field(static=True)

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 256, 256),
        score_scale: float | int = 1 / 9,
        dirac: bool = True,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        *,
        key: Key,
    ):
        whiten_key, head_key, *keys = jax.random.split(key, len(widths) + 2)
        whitened = 2 * 4 * in_channels
        self.whiten = Conv(in_channels, whitened, 2, padding="VALID", weight_init=_INIT, key=whiten_key)
        self.blocks = tuple(
            Block(n_in, n_out, dirac, key=each)
            for (n_in, n_out), each in zip(pairwise((whitened, *widths)), keys, strict=True)
        )
        self.head = Linear(widths[-1], num_classes, use_bias=False, key=head_key) if num_classes else eqx.nn.Identity()
        self.score_scale = score_scale if num_classes else 1

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """The maps behind each block, `[h/2 w/2 64]`, `[h/4 w/4 256]` and `[h/8 w/8 256]`."""
        maps, x = (), _gelu(self.whiten(image))  # h-1 w-1 24
        for block in self.blocks:
            x, state = block(x, state)
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Scores `[classes]` of one image `[h w c]`, or its 256 features."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_max_pool(maps[-1])) * self.score_scale, state

    def initialized_from(self, images: Images) -> "Airbench94":
        """The network with the weight of `whiten` set to whiten the 2x2 patches of these images (section 3.2).

        Its filters are the eigenvectors of the patches' second moments, largest eigenvalue first, each divided by the
        root of its eigenvalue plus 5e-4, and then the same with the other sign: hence 2 * 4 * `in_channels` of them.
        """
        height, width = images.shape[1] - 1, images.shape[2] - 1
        corners = [images[:, top : top + height, left : left + width] for top in range(2) for left in range(2)]
        patches = jnp.concatenate(corners, -1).reshape(-1, 4 * images.shape[-1])
        moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
        values, vectors = jnp.linalg.eigh(moments)
        filters = (vectors / jnp.sqrt(values + _WHITENING_EPS))[:, ::-1]
        weight = jnp.concatenate([filters, -filters], 1).reshape(self.whiten.weight.shape)
        return eqx.tree_at(lambda model: model.whiten.weight, self, weight)


def _gelu(x: Image) -> Image:
    """The exact one, as in the published code."""
    return jax.nn.gelu(x, approximate=False)


def _conv(in_channels: int, out_channels: int, dirac: bool, key: Key) -> Conv:
    """A 3x3 convolution; with `dirac`, its first filters hand one input channel on each, as many as there are."""
    conv = Conv(in_channels, out_channels, 3, padding=1, use_bias=False, weight_init=_INIT, key=key)
    if not dirac:
        return conv
    handed = jnp.arange(min(in_channels, out_channels))
    weight = conv.weight.at[..., handed].set(0).at[1, 1, handed, handed].set(1)
    return eqx.tree_at(lambda each: each.weight, conv, weight)


_row = partial(
    Variant,
    input=(32, 32, 3),
    num_classes=10,
    source="https://arxiv.org/abs/2404.00498",
    task="cifar",
    smallest=9,
    strides=(2, 4, 8),
)

variants = {
    "airbench94": _row(Airbench94, params=1_971_640, recipe="airbench94"),
    # Not published: narrow, for a CPU.
    "airbench94_narrow": _row(partial(Airbench94, widths=(48, 96, 96)), params=323_160, recipe="cifar_fast"),
}
