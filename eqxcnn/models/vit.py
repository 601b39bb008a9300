"""Vision transformers: an image as a sequence of patches (Dosovitskiy et al. 2021).

https://arxiv.org/abs/2010.11929
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import (
    Attention,
    Conv,
    Dropout,
    DropPath,
    LayerNorm,
    drop_path_rates,
    each_position,
    keys_for,
    make_linear,
)
from ..layers.initializers import lecun_normal, transformer_normal
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["Block", "ViT", "variants"]

_EPS = 1e-6


class Block(eqx.Module):
    """LayerNorm and attention, then LayerNorm and an MLP with `4 * dim` hidden units (equations 2 and 3)."""

    norm1: LayerNorm
    attention: Attention
    norm2: LayerNorm
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    dropout: Dropout
    drop_path: DropPath

    def __init__(self, dim: int, heads: int, dropout_rate: float | int, drop_path_rate: float | int, *, key: Key):
        attention_key, fc1_key, fc2_key = jax.random.split(key, 3)
        self.norm1 = LayerNorm(dim, eps=_EPS)
        self.attention = Attention(dim, heads, transformer_normal, key=attention_key)
        self.norm2 = LayerNorm(dim, eps=_EPS)
        self.fc1 = make_linear(dim, 4 * dim, transformer_normal, key=fc1_key)
        self.fc2 = make_linear(4 * dim, dim, transformer_normal, key=fc2_key)
        self.dropout = Dropout(dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def __call__(self, tokens: Float[Array, "n d"], *, key: Key | None) -> Float[Array, "n d"]:
        """Returns tokens `[n d]`."""
        keys = keys_for(key, 5)
        x = self.dropout(self.attention(each_position(self.norm1, tokens)), key=keys[0])
        tokens = tokens + self.drop_path(x, key=keys[1])
        x = each_position(self.fc1, each_position(self.norm2, tokens))
        x = self.dropout(jax.nn.gelu(x, approximate=False), key=keys[2])  # n 4*d
        x = self.dropout(each_position(self.fc2, x), key=keys[3])
        return tokens + self.drop_path(x, key=keys[4])


class ViT(eqx.Module):
    """A vision transformer with a class token and learned position embeddings (Dosovitskiy et al. 2021, section 3.1).

    Initial weights are as in DeiT (Touvron et al. 2021): truncated normal with standard deviation 0.02, but
    Lecun normal in the patch embedding. The model takes images of exactly `image_size`.

    **Arguments:**

    - `patch`: height and width of a patch in pixels; both sides of `image_size` must be multiples of `patch`.
    - `dim`: width of a token.
    - `depth`: number of blocks.
    - `heads`: number of attention heads.
    - `dropout_rate`: dropout rate after the position embedding and after every dense layer except the query, key and
      value projections (appendix B.1).
    - `drop_path_rate`: drop path rate of the last block; the rates increase linearly from 0. DeiT uses drop path,
      but the paper does not.

    **Raises:** `InputError` if `image_size` is not a multiple of `patch`.
    """

    patches: Conv
    class_token: Float[Array, " d"]
    positions: Float[Array, "n d"]
    blocks: tuple[Block, ...]
    norm: LayerNorm
    head: eqx.nn.Linear | eqx.nn.Identity
    dropout: Dropout
    image_size: tuple[int, int] = eqx.field(static=True)
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        dropout_rate: float | int = 0.0,
        drop_path_rate: float | int = 0.0,
        *,
        key: Key,
    ):
        height, width = image_size
        if height % patch or width % patch:
            raise InputError(
                f"`image_size` (={height}x{width}) must be a multiple of `patch` (={patch}) in height and width: give "
                "the nearest multiple"
            )
        patch_key, class_key, position_key, head_key, *keys = jax.random.split(key, 4 + depth)
        count = (height // patch) * (width // patch)
        self.patches = Conv(in_channels, dim, patch, patch, "VALID", weight_init=lecun_normal, key=patch_key)
        self.class_token = transformer_normal(class_key, (dim,))
        self.positions = transformer_normal(position_key, (1 + count, dim))
        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks = tuple(
            Block(dim, heads, dropout_rate, rate, key=block_key) for rate, block_key in zip(rates, keys, strict=True)
        )
        self.norm = LayerNorm(dim, eps=_EPS)
        self.head = (
            make_linear(dim, num_classes, transformer_normal, key=head_key) if num_classes else eqx.nn.Identity()
        )
        self.dropout = Dropout(dropout_rate)
        self.image_size = image_size
        self.is_random = max(dropout_rate, drop_path_rate) > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the normalized patch tokens after the last block as one map `[h/patch w/patch d]`."""
        rows, columns = (size // stride for size, stride in zip(self.image_size, self.patches.stride, strict=True))
        return (self._compute_tokens(image, key)[1:].reshape(rows, columns, -1),), state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its class token if `num_classes=0`."""
        return self.head(self._compute_tokens(image, key)[0]), state

    def _compute_tokens(self, image: Image, key: Key | None) -> Float[Array, "n d"]:
        """Returns the class token, then the patch tokens row by row."""
        if image.shape[:2] != self.image_size:
            (height, width), (rows, columns) = image.shape[:2], self.image_size
            raise InputError(
                f"`image` ({height}x{width}) must have the size that the model's position embeddings were built for, "
                f"{rows}x{columns}: resize the image, or build the model with its `image_size`"
            )
        dropout_key, *keys = keys_for(key, 1 + len(self.blocks), used=self.is_random)
        x = self.patches(image)  # h/patch w/patch d
        x = jnp.concatenate([self.class_token[None], x.reshape(-1, x.shape[-1])])  # n d
        x = self.dropout(x + self.positions, key=dropout_key)
        for block, block_key in zip(self.blocks, keys, strict=True):
            x = block(x, key=block_key)
        return each_position(self.norm, x)


# Name, patch, width, depth, heads, parameters.
_IMAGENET = (
    ("vit_b_16", 16, 768, 12, 12, 86_567_656),
    ("vit_b_32", 32, 768, 12, 12, 88_224_232),
    ("vit_l_16", 16, 1024, 24, 16, 304_326_632),
    ("vit_l_32", 32, 1024, 24, 16, 306_535_400),
    ("vit_h_14", 14, 1280, 32, 16, 632_045_800),
)
#: timm's `vit_tiny` and `vit_small`, with patches of 4x4 pixels for 32x32 images. No counts are published for these
#: sizes; the numbers of parameters are calculated from the architecture.
_CIFAR = (
    ("vit_tiny_patch4_32", 4, 192, 12, 3, 5_362_762),
    ("vit_small_patch4_32", 4, 384, 12, 6, 21_342_346),
)
variants = {
    name: Variant(
        make=partial(ViT, patch=patch, dim=dim, depth=depth, heads=heads),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2010.11929",
        task="imagenet",
        smallest=patch,
        strides=(patch,),
        torch_twin=name,
    )
    for name, patch, dim, depth, heads, params in _IMAGENET
} | {
    name: Variant(
        make=partial(ViT, patch=patch, dim=dim, depth=depth, heads=heads),
        input=(32, 32, 3),
        num_classes=10,
        params=params,
        source="https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/vision_transformer.py",
        task="cifar",
        smallest=patch,
        strides=(patch,),
        recipe=name if name == "vit_tiny_patch4_32" else None,
    )
    for name, patch, dim, depth, heads, params in _CIFAR
}
