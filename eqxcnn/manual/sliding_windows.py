"""The windows through which a kernel sees a map, and the way back from windows to pixels.

Window `o` of an axis covers the pixels `o * stride - before + u`, `0 <= u < kernel`. Cutting windows out is linear in
the pixels, so the transpose carries gradients back: what a window received is added to the pixels it was cut from.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..errors import InputError
from ..layers.sizes import Edges, Padding, Pair, Size, parse_padding, parse_pair, resolve_padding
from ..types import Images


@dataclass(frozen=True)
class Windows:
    """Where the windows lie on a map; each field is a pair, for the height and for the width.

    - `size`: the map's pixels.
    - `kernel`, `stride`: a window's pixels, and those from one window to the next.
    - `edges`: the pixels added before and after the map.
    - `count`: how many windows fit.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    edges: Edges
    count: Pair

    @property
    def is_tiling(self) -> bool:
        """Whether windows lie side by side, so that no pixel is in two of them."""
        return self.stride == self.kernel

    def cut(self, x: Images, fill: float = 0.0) -> Float[Array, "b h2 w2 kc"]:
        """Each window's pixels, row by row and `c` channels a pixel; those outside the map are `fill`."""
        x = self._fit(x, fill)
        return jnp.concatenate([self._shifted(x, offset) for offset in self._offsets()], axis=-1)

    def paste(self, patches: Float[Array, "b h2 w2 kc"]) -> Images:
        """The transpose of `cut`: each pixel of the map receives the sum of its copies in the windows."""
        zero = jnp.zeros((), patches.dtype)
        offsets = self._offsets()
        shares = zip(jnp.split(patches, len(offsets), axis=-1), offsets, strict=True)
        return sum((lax.pad(share, zero, self._spread(offset)) for share, offset in shares), start=zero)

    def tile(self, x: Images, fill: float = 0.0) -> Float[Array, "b h2 kh w2 kw c"]:
        """What `cut` gives when `is_tiling`, as a reshape: windows and their pixels on axes of their own."""
        rows, columns = zip(self.count, self.kernel, strict=True)
        return self._fit(x, fill).reshape(x.shape[0], *rows, *columns, x.shape[-1])

    def untile(self, tiles: Float[Array, "b h2 kh w2 kw c"]) -> Images:
        """The transpose of `tile`."""
        b, h2, kh, w2, kw, c = tiles.shape
        back = [(-low, -high, 0) for low, high in self._margins()]
        return lax.pad(tiles.reshape(b, h2 * kh, w2 * kw, c), jnp.zeros((), tiles.dtype), [(0, 0, 0), *back, (0, 0, 0)])

    def _offsets(self) -> list[Pair]:
        """Where the pixels of a window lie in it, row by row."""
        return [(u, v) for u in range(self.kernel[0]) for v in range(self.kernel[1])]

    def _margins(self) -> list[Pair]:
        """What is added before and after each axis so that it ends with its last window; negative is cut off."""
        spans = [(n - 1) * s + k for n, s, k in zip(self.count, self.stride, self.kernel, strict=True)]
        return [(low, span - low - size) for (low, _), span, size in zip(self.edges, spans, self.size, strict=True)]

    def _fit(self, x: Images, fill: float) -> Float[Array, "b h2 w2 c"]:
        margins = [(low, high, 0) for low, high in self._margins()]
        return lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])

    def _shifted(self, x: Images, offset: Pair) -> Float[Array, "b h2 w2 c"]:
        """The pixel at `offset` of every window."""
        (u, v), (h2, w2), (sy, sx) = offset, self.count, self.stride
        return x[:, u : u + (h2 - 1) * sy + 1 : sy, v : v + (w2 - 1) * sx + 1 : sx]

    def _spread(self, offset: Pair) -> list[tuple[int, int, int]]:
        """How `lax.pad` puts the pixels at `offset` back: `stride` apart, the first at `offset - before`."""
        axes = zip(offset, self.edges, self.count, self.stride, self.size, strict=True)
        spread = [(u - low, size - (u - low) - ((n - 1) * s + 1), s - 1) for u, (low, _), n, s, size in axes]
        return [(0, 0, 0), *spread, (0, 0, 0)]


def windows(size: Pair, kernel_size: Size, stride: Size, padding: Padding) -> Windows:
    """The windows of a map `[b h w c]` of this `(height, width)`.

    **Arguments:**

    - `size`: the map's height and width.
    - `kernel_size`, `stride`: an integer or a `(height, width)` pair.
    - `padding`: `"SAME"` gives `ceil(size / stride)` windows, with an odd pixel added at the bottom and right;
      `"VALID"` adds none; else a number of pixels, a pair of them, or `((top, bottom), (left, right))`.

    **Raises:** `InputError` for sizes that cannot be, or when not one window fits.
    """
    kernel, steps = parse_pair("kernel_size", kernel_size, least=1), parse_pair("stride", stride, least=1)
    edges = resolve_padding(parse_padding(padding), size, kernel, steps)
    count = [(n + sum(edge) - k) // s + 1 for n, edge, k, s in zip(size, edges, kernel, steps, strict=True)]
    if min(count) < 1:
        raise InputError(
            f"`kernel_size` (={kernel}) is larger than an image of {size[0]}x{size[1]} pixels with `padding` "
            f"(={padding!r}): give a larger image or a smaller kernel."
        )
    return Windows(size, kernel, steps, edges, (count[0], count[1]))
