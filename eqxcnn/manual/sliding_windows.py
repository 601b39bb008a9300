"""Sliding windows of convolution and pooling: their extraction from a map, and the transpose of the extraction.

Window `o` of an axis covers the pixels `o * stride - before + u`, `0 <= u < kernel`. Extracting windows is linear in
the pixels, so its backward pass is the transpose: a pixel's gradient is the sum of the gradients of its copies.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers.sizes import Edges, Padding, Pair, Size, parse_padding, parse_pair, resolve_padding
from ..types import Images

__all__ = ["Windows", "windows"]


@dataclass(frozen=True)
class Windows:
    """The positions of windows on a map; each field is a pair, for height and width.

    - `size`: size of the map in pixels.
    - `kernel`, `stride`: size of a window, and the distance between neighboring windows.
    - `edges`: pixels of padding before and after the map.
    - `count`: number of windows.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    edges: Edges
    count: Pair

    @property
    def is_tiling(self) -> bool:
        """Whether neighboring windows touch without overlap, so that no pixel is in two of them."""
        return self.stride == self.kernel

    def cut(self, x: Images, fill: float = 0.0) -> Float[Array, "b h2 w2 kc"]:
        """Returns the pixels of each window row by row, with `c` channels per pixel; padded pixels are `fill`."""
        x = self._pad_or_crop(x, fill)
        return jnp.concatenate([self._pixels_at(x, offset) for offset in self._offsets()], axis=-1)

    def paste(self, patches: Float[Array, "b h2 w2 kc"]) -> Images:
        """Returns the transpose of `cut`: each pixel of the map is the sum of its copies in the windows."""
        zero = jnp.zeros((), patches.dtype)
        offsets = self._offsets()
        shares = zip(jnp.split(patches, len(offsets), axis=-1), offsets, strict=True)
        return sum((lax.pad(share, zero, self._padding_back(offset)) for share, offset in shares), start=zero)

    def tile(self, x: Images, fill: float = 0.0) -> Float[Array, "b h2 kh w2 kw c"]:
        """Returns the pixels of each window, with separate axes for windows and pixels; needs `is_tiling`."""
        rows, columns = zip(self.count, self.kernel, strict=True)
        return self._pad_or_crop(x, fill).reshape(x.shape[0], *rows, *columns, x.shape[-1])

    def untile(self, tiles: Float[Array, "b h2 kh w2 kw c"]) -> Images:
        """Returns the transpose of `tile`."""
        b, h2, kh, w2, kw, c = tiles.shape
        back = [(-low, -high, 0) for low, high in self._margins()]
        return lax.pad(tiles.reshape(b, h2 * kh, w2 * kw, c), jnp.zeros((), tiles.dtype), [(0, 0, 0), *back, (0, 0, 0)])

    def _offsets(self) -> list[Pair]:
        """Returns the offsets of the pixels of a window, row by row."""
        return [(u, v) for u in range(self.kernel[0]) for v in range(self.kernel[1])]

    def _margins(self) -> list[Pair]:
        """Returns the padding before and after each axis; negative padding crops the pixels that no window covers."""
        spans = [(n - 1) * s + k for n, s, k in zip(self.count, self.stride, self.kernel, strict=True)]
        return [(low, span - low - size) for (low, _), span, size in zip(self.edges, spans, self.size, strict=True)]

    def _pad_or_crop(self, x: Images, fill: float) -> Float[Array, "b h2 w2 c"]:
        margins = [(low, high, 0) for low, high in self._margins()]
        return lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])

    def _pixels_at(self, x: Images, offset: Pair) -> Float[Array, "b h2 w2 c"]:
        """Returns the pixel at `offset` in every window."""
        (u, v), (h2, w2), (sy, sx) = offset, self.count, self.stride
        return x[:, u : u + (h2 - 1) * sy + 1 : sy, v : v + (w2 - 1) * sx + 1 : sx]

    def _padding_back(self, offset: Pair) -> list[tuple[int, int, int]]:
        """Returns the `lax.pad` argument that puts the pixels at `offset` back into a map, `stride` pixels apart."""
        axes = zip(offset, self.edges, self.count, self.stride, self.size, strict=True)
        config = [(u - low, size - (u - low) - ((n - 1) * s + 1), s - 1) for u, (low, _), n, s, size in axes]
        return [(0, 0, 0), *config, (0, 0, 0)]


def windows(size: Pair, kernel_size: Size, stride: Size, padding: Padding) -> Windows:
    """Returns the positions of the windows on maps `[b h w c]`.

    **Arguments:**

    - `size`: height and width of the maps.
    - `kernel_size`, `stride`: an integer or a `(height, width)` pair.
    - `padding`: `"SAME"` for `ceil(size / stride)` windows, where odd padding has its extra pixel at the end;
      `"VALID"` for no padding; or a number of pixels, a `(height, width)` pair, or `((top, bottom), (left, right))`.

    **Raises:** `InputError` for an invalid size, stride or padding, or if no window fits.
    """
    kernel, steps = parse_pair("kernel_size", kernel_size, least=1), parse_pair("stride", stride, least=1)
    edges = resolve_padding(parse_padding(padding), size, kernel, steps)
    count = [(n + sum(edge) - k) // s + 1 for n, edge, k, s in zip(size, edges, kernel, steps, strict=True)]
    if min(count) < 1:
        raise InputError(
            f"`kernel_size` (={kernel}) must fit into an image of {size[0]}x{size[1]} pixels with `padding` "
            f"(={padding!r}): give a larger image or a smaller kernel"
        )
    return Windows(size, kernel, steps, edges, (count[0], count[1]))
