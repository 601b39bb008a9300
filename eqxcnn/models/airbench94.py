"""The airbench94 network (Jordan 2024): 94 % on CIFAR-10 in ten epochs, with a first layer that whitens patches."""

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import BatchNorm, Conv, Linear, MaxPool, global_max_pool
from ..layers.initializers import torch_uniform
from ..types import Image, Images, Key, Logits, Maps, Variant

__all__ = ["Airbench94", "Block", "variants"]

#: Added to the eigenvalues, so that whitening does not amplify directions with almost no variance.
_WHITENING_EPS = 5e-4

#: Activation functions by name; the published code uses the exact GELU.
_ACTIVATIONS = {"gelu": partial(jax.nn.gelu, approximate=False), "silu": jax.nn.silu}


class Block(eqx.Module):
    """Two 3x3 convolutions, each with BatchNorm and an activation; 2x2 max pooling follows the first convolution.

    BatchNorm has no scale, and a momentum of 0.4 keeps its running statistics close to the latest batches.

    **Arguments:**

    - `use_dirac`: whether both convolutions start as the identity (see `Airbench94`).
    - `activation`: the name of the activation function, `gelu` or `silu`.
    """

    conv1: Conv
    norm1: BatchNorm
    conv2: Conv
    norm2: BatchNorm
    pool: MaxPool
    activation: str = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, use_dirac: bool, activation: str = "gelu", *, key: Key):
        first, second = jax.random.split(key)
        self.conv1 = _make_conv(in_channels, out_channels, use_dirac, first)
        self.norm1 = BatchNorm(out_channels, eps=1e-12, momentum=0.4, use_scale=False)
        self.conv2 = _make_conv(out_channels, out_channels, use_dirac, second)
        self.norm2 = BatchNorm(out_channels, eps=1e-12, momentum=0.4, use_scale=False)
        self.pool = MaxPool(2)
        self.activation = activation

    def __call__(self, image: Image, state: eqx.nn.State) -> tuple[Float[Array, "h2 w2 o"], eqx.nn.State]:
        """Returns the maps `[h/2 w/2 out_channels]` and the new state."""
        x, state = self.norm1(self.pool(self.conv1(image)), state)
        activate = _ACTIVATIONS[self.activation]
        x, state = self.norm2(self.conv2(activate(x)), state)
        return activate(x), state


class Airbench94(eqx.Module):
    """A 2x2 convolution that whitens patches, three blocks, and a dense layer without bias (Jordan 2024, section 3.1).

    Global max pooling feeds the dense layer; for a 32x32 image the last maps are 3x3. In the convolutions of the
    blocks, the first `in_channels` filters start as the identity (section 3.3). All other weights are initialized as in
    torch, uniform up to 1 / sqrt(fan_in); biases start at zero.

    The parameter count of 1,971,640 includes the 288 weights of `whiten`, which the published training never updates.
    The network has no BatchNorm scales; the published code has them, but leaves them at one.

    **Arguments:**

    - `widths`: output channels of the three blocks.
    - `score_scale`: factor on the output of the dense layer.
    - `dirac`: whether the convolutions of the blocks start as the identity, as above, instead of at random.
    - `activation`: the name of the activation function, `gelu` (exact) or `silu`.
    - `head_std`: standard deviation to which the initial weights of the dense layer are scaled; 0 for no scaling.

    **Raises:** `InputError` for another `activation`.
    """

    #: The constructor gives the weight random values, and `initialized_from` replaces them by computed values. The
    #: published training does so before the first step, never updates the weight, and trains the bias for the first
    #: epochs only.
    whiten: Conv
    blocks: tuple[Block, ...]
    head: eqx.nn.Linear | eqx.nn.Identity
    score_scale: float | int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 256, 256),
        score_scale: float | int = 1 / 9,
        dirac: bool = True,
        activation: str = "gelu",
        head_std: float | int = 0,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        *,
        key: Key,
    ):
        if activation not in _ACTIVATIONS:
            raise InputError(f"`activation` (={activation!r}) must be one of {', '.join(_ACTIVATIONS)}")
        whiten_key, head_key, *keys = jax.random.split(key, len(widths) + 2)
        whitened = 2 * 4 * in_channels
        self.whiten = Conv(in_channels, whitened, 2, padding="VALID", weight_init=torch_uniform, key=whiten_key)
        self.blocks = tuple(
            Block(n_in, n_out, dirac, activation, key=block_key)
            for (n_in, n_out), block_key in zip(pairwise((whitened, *widths)), keys, strict=True)
        )
        self.head = _make_head(widths[-1], num_classes, head_std, head_key) if num_classes else eqx.nn.Identity()
        self.score_scale = score_scale if num_classes else 1
        self.activation = activation

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each block, `[h/2 w/2 64]`, `[h/4 w/4 256]` and `[h/8 w/8 256]`."""
        maps, x = (), _ACTIVATIONS[self.activation](self.whiten(image))  # h-1 w-1 24
        for block in self.blocks:
            x, state = block(x, state)
            maps += (x,)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its 256 features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_max_pool(maps[-1])) * self.score_scale, state

    def initialized_from(self, images: Images) -> "Airbench94":
        """Returns the network with the weight of `whiten` set to whiten the 2x2 patches of `images` (section 3.2).

        The first half of the filters are the eigenvectors of the patches' second-moment matrix, largest eigenvalue
        first, each divided by sqrt(eigenvalue + 5e-4); the second half are their negatives. That gives
        2 * 4 * `in_channels` filters.
        """
        height, width = images.shape[1] - 1, images.shape[2] - 1
        corners = [images[:, top : top + height, left : left + width] for top in range(2) for left in range(2)]
        patches = jnp.concatenate(corners, -1).reshape(-1, 4 * images.shape[-1])
        moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
        values, vectors = jnp.linalg.eigh(moments)
        filters = (vectors / jnp.sqrt(values + _WHITENING_EPS))[:, ::-1]
        weight = jnp.concatenate([filters, -filters], 1).reshape(self.whiten.weight.shape)
        return eqx.tree_at(lambda model: model.whiten.weight, self, weight)


def _make_head(features: int, num_classes: int, std: float | int, key: Key) -> eqx.nn.Linear:
    """Makes a dense layer without bias; `std` is the standard deviation to scale its weights to, or 0."""
    head = Linear(features, num_classes, use_bias=False, key=key)
    if not std:
        return head
    return eqx.tree_at(lambda layer: layer.weight, head, std / head.weight.std() * head.weight)


def _make_conv(in_channels: int, out_channels: int, use_dirac: bool, key: Key) -> Conv:
    """Makes a 3x3 convolution; with `use_dirac`, filter `i` initially copies input channel `i`, if it exists."""
    conv = Conv(in_channels, out_channels, 3, padding=1, use_bias=False, weight_init=torch_uniform, key=key)
    if not use_dirac:
        return conv
    copied = jnp.arange(min(in_channels, out_channels))
    weight = conv.weight.at[..., copied].set(0).at[1, 1, copied, copied].set(1)
    return eqx.tree_at(lambda layer: layer.weight, conv, weight)


_variant = partial(
    Variant,
    input=(32, 32, 3),
    num_classes=10,
    source="https://arxiv.org/abs/2404.00498",
    task="cifar",
    smallest=9,
    strides=(2, 4, 8),
)

variants = {
    "airbench94": _variant(Airbench94, params=1_971_640, recipe="airbench94"),
    # A narrower network for CPUs; not in the paper.
    "airbench94_narrow": _variant(partial(Airbench94, widths=(48, 96, 96)), params=323_160, recipe="cifar_fast"),
    # The network of `airbench94` for cats and dogs; not in the paper.
    "airbench94_catsdogs": _variant(
        Airbench94, params=1_969_592, recipe="catsdogs_finetune", input=(80, 80, 3), num_classes=2, task="catsdogs"
    ),
}
