"""Swin transformers: attention within windows that shift by half their size in every other block (Liu et al. 2021).

https://arxiv.org/abs/2103.14030
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers import (
    Attention,
    Conv,
    DropPath,
    LayerNorm,
    Linear,
    drop_path_rates,
    each_position,
    global_avg_pool,
    keys_for,
    make_linear,
)
from ..layers.initializers import lecun_normal, transformer_normal
from ..types import Image, Key, Logits, Maps, Variant

__all__ = ["Block", "Merge", "Swin", "WindowAttention", "variants"]

_PATCH = 4
_MAX_WINDOW = 64
#: Attention bias between pixels that share a window only because the shift wraps around; as in the published code.
_MASK_BIAS = -100.0


class WindowAttention(eqx.Module):
    """Attention within each window of the map, with a learned bias per relative position (section 3.2).

    The map is zero-padded at the bottom and right to whole windows. The padding takes part in attention, as in the
    published networks.

    **Arguments:**

    - `dim`, `heads`: as for `Attention`.
    - `window`: height and width of a window, in pixels of the map.
    - `shift`: pixels by which the windows move down and right. The windows wrap around the map, and attention between
      pixels from opposite edges is masked. An axis with a single window is not shifted.
    """

    attention: Attention
    offset_bias: Float[Array, "offsets heads"]
    window: int = eqx.field(static=True)
    shift: int = eqx.field(static=True)

    def __init__(self, dim: int, heads: int, window: int, shift: int, *, key: Key):
        attention_key, bias_key = jax.random.split(key)
        self.attention = Attention(dim, heads, transformer_normal, key=attention_key)
        self.offset_bias = transformer_normal(bias_key, ((2 * window - 1) ** 2, heads))
        self.window = window
        self.shift = shift

    def __call__(self, maps: Image) -> Image:
        """Returns maps `[h w dim]`."""
        height, width, _ = maps.shape
        x = jnp.pad(maps, ((0, -height % self.window), (0, -width % self.window), (0, 0)))
        down, right = (self.shift if size > self.window else 0 for size in x.shape[:2])
        bias = self.offset_bias[_offset_indices(self.window)].transpose(2, 0, 1)  # heads n n
        if down or right:
            x = jnp.roll(x, (-down, -right), (0, 1))
            mask = _wrapped_pairs(x.shape[0], x.shape[1], self.window, down, right)[:, None]  # windows 1 n n
            bias = jnp.where(mask, bias + _MASK_BIAS, bias)  # windows heads n n
        windows = rearrange(x, "(r p) (c q) d -> (r c) (p q) d", p=self.window, q=self.window)
        windows = jax.vmap(self.attention, in_axes=(0, 0 if bias.ndim == 4 else None))(windows, bias)
        x = rearrange(windows, "(r c) (p q) d -> (r p) (c q) d", r=x.shape[0] // self.window, p=self.window)
        return jnp.roll(x, (down, right), (0, 1))[:height, :width]


def _offset_indices(window: int) -> np.ndarray:
    """Returns `[n n]` row indices into `offset_bias`, one per pair of query and key pixels in a window."""
    row, column = np.divmod(np.arange(window**2), window)
    down, right = (position[:, None] - position[None] + window - 1 for position in (row, column))
    return down * (2 * window - 1) + right


def _wrapped_pairs(height: int, width: int, window: int, down: int, right: int) -> np.ndarray:
    """Returns booleans `[windows n n]`: whether two pixels of a window come from opposite edges of the map."""
    # Rolling moved the first `down` rows and `right` columns to the end.
    rows, columns = np.arange(height) >= height - down, np.arange(width) >= width - right
    sides = rearrange(2 * rows[:, None] + columns, "(r p) (c q) -> (r c) (p q)", p=window, q=window)
    return sides[:, :, None] != sides[:, None, :]


class Block(eqx.Module):
    """LayerNorm and windowed attention, then LayerNorm and an MLP with `4 * dim` hidden units (equation 3)."""

    norm1: LayerNorm
    attn: WindowAttention
    norm2: LayerNorm
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    drop_path: DropPath

    def __init__(self, dim: int, heads: int, window: int, shift: int, drop_path_rate: float | int, *, key: Key):
        attn_key, fc1_key, fc2_key = jax.random.split(key, 3)
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shift, key=attn_key)
        self.norm2 = LayerNorm(dim)
        self.fc1 = make_linear(dim, 4 * dim, transformer_normal, key=fc1_key)
        self.fc2 = make_linear(4 * dim, dim, transformer_normal, key=fc2_key)
        self.drop_path = DropPath(drop_path_rate)

    def __call__(self, maps: Image, *, key: Key | None) -> Image:
        """Returns maps `[h w dim]`."""
        keys = keys_for(key, 2)
        maps = maps + self.drop_path(self.attn(each_position(self.norm1, maps)), key=keys[0])
        x = jax.nn.gelu(each_position(self.fc1, each_position(self.norm2, maps)), approximate=False)  # h w 4*d
        return maps + self.drop_path(each_position(self.fc2, x), key=keys[1])


class Merge(eqx.Module):
    """Concatenates the channels of each 2x2 block, normalizes, and projects to `2 * dim` channels (section 3.1)."""

    norm: LayerNorm
    reduction: eqx.nn.Linear

    def __init__(self, dim: int, *, key: Key):
        self.norm = LayerNorm(4 * dim)
        # `filter_eval_shape` avoids drawing initial values that are replaced at once.
        layer = eqx.filter_eval_shape(Linear, 4 * dim, 2 * dim, use_bias=False, key=key)
        self.reduction = eqx.tree_at(lambda linear: linear.weight, layer, transformer_normal(key, (2 * dim, 4 * dim)))

    def __call__(self, maps: Image) -> Float[Array, "h2 w2 d2"]:
        """Returns maps `[h/2 w/2 2*dim]`, rounded up: odd sizes are zero-padded."""
        x = jnp.pad(maps, ((0, maps.shape[0] % 2), (0, maps.shape[1] % 2), (0, 0)))
        x = rearrange(x, "(h p) (w q) d -> h w (q p d)", p=2, q=2)
        return each_position(self.reduction, each_position(self.norm, x))


class Swin(eqx.Module):
    """A Swin transformer: stages of windowed attention at strides 4, 8, 16 and 32 (Liu et al. 2021, section 3.1).

    Initial weights are truncated normal with standard deviation 0.02, but Lecun normal in the embedding of 4x4
    patches. Images may have any size.

    **Arguments:**

    - `dim`: width of the first stage; each later stage is twice as wide.
    - `depths`, `heads`: number of blocks and of attention heads of each stage.
    - `window`: height and width of a window, in pixels of the map; at most 64, because attention compares all pairs
      of a window's pixels. Every second block shifts the windows by half their size.
    - `drop_path_rate`: drop path rate of the last block; the rates increase linearly from 0.

    **Raises:** `InputError` if `window` is too large.
    """

    patches: Conv
    patch_norm: LayerNorm
    stages: tuple[tuple[Block, ...], ...]
    merges: tuple[Merge, ...]
    norm: LayerNorm
    head: eqx.nn.Linear | eqx.nn.Identity
    is_random: bool = eqx.field(static=True)

    def __init__(
        self,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        window: int = 7,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        drop_path_rate: float | int = 0.2,
        *,
        key: Key,
    ):
        if window > _MAX_WINDOW:
            raise InputError(f"`window` (={window}) must be at most {_MAX_WINDOW}")
        del image_size  # Windowed attention takes images of any size.
        patch_key, head_key, *keys = jax.random.split(key, 2 + sum(depths) + len(depths) - 1)
        widths = [dim * 2**stage for stage in range(len(depths))]
        block_keys, merge_keys = iter(keys[: sum(depths)]), keys[sum(depths) :]
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.patches = Conv(in_channels, dim, _PATCH, _PATCH, "VALID", weight_init=lecun_normal, key=patch_key)
        self.patch_norm = LayerNorm(dim)
        self.stages = tuple(
            tuple(
                Block(width, count, window, index % 2 * (window // 2), next(rates), key=next(block_keys))
                for index in range(depth)
            )
            for width, depth, count in zip(widths, depths, heads, strict=True)
        )
        self.merges = tuple(Merge(width, key=merge_key) for width, merge_key in zip(widths, merge_keys, strict=False))
        self.norm = LayerNorm(widths[-1])
        self.head = (
            make_linear(widths[-1], num_classes, transformer_normal, key=head_key) if num_classes else eqx.nn.Identity()
        )
        self.is_random = drop_path_rate > 0

    def features(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Maps, eqx.nn.State]:
        """Returns the output of each stage, at strides 4, 8, 16 and 32."""
        keys = iter(keys_for(key, sum(map(len, self.stages)), used=self.is_random))
        x = each_position(self.patch_norm, self.patches(image))  # h/4 w/4 dim
        maps = ()
        for stage, merge in zip(self.stages, (*self.merges, None), strict=True):
            for block in stage:
                x = block(x, key=next(keys))
            maps += (x,)
            if merge is not None:
                x = merge(x)
        return maps, state

    def __call__(self, image: Image, state: eqx.nn.State, *, key: Key | None) -> tuple[Logits, eqx.nn.State]:
        """Returns scores `[classes]` for one image `[h w c]`, or its pooled features if `num_classes=0`."""
        maps, state = self.features(image, state, key=key)
        return self.head(global_avg_pool(each_position(self.norm, maps[-1]))), state


# Name, width, depths, heads, drop path rate, parameters.
_TABLE = (
    ("swin_t", 96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2, 28_288_354),
    ("swin_s", 96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3, 49_606_258),
    ("swin_b", 128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5, 87_768_224),
)
variants = {
    name: Variant(
        make=partial(Swin, dim=dim, depths=depths, heads=heads, drop_path_rate=rate),
        input=(224, 224, 3),
        num_classes=1000,
        params=params,
        source="https://arxiv.org/abs/2103.14030",
        task="imagenet",
        smallest=_PATCH,
        strides=(4, 8, 16, 32),
        torch_twin=name,
    )
    for name, dim, depths, heads, rate, params in _TABLE
}
