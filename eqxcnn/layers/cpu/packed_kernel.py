"""Kernels in the order in which oneDNN reads them.

Each call to oneDNN first copies the kernel into this order. For a few small images, the copy can take as long as the
convolution itself. For inference, `pack` makes the copy once: the output channels of each group are divided into blocks
of equal size, and each block is stored as `[kh kw i/groups block]`. The size of the blocks depends on the convolution
and on the machine. jaxlib has no function that returns it, so `find_block` tries several.
"""

from collections import Counter
from functools import cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import onednn
from .implementation import ImagesShape, Kernel, KernelShape, Window
from .onednn_conv import convolve_by_onednn, infer_output

__all__ = ["MAX_PIXELS", "PackedKernel", "find_block", "pack", "unpack"]

PackedKernel = Float[Array, "blocks kh kw _ block"]

#: Blocks that oneDNN uses, the most frequent ones first.
_BLOCKS = (64, 48, 32, 16, 24, 8)
#: How often each size was found. Those found most often are tried first, since a machine mostly uses one or two.
_found: Counter[int] = Counter()
#: With more output pixels than this in all images together, copying the kernel takes little of the time.
MAX_PIXELS = 2**10
#: For fewer multiply-adds, XLA is as fast for a single image (`onednn_conv.py`, `product.py`).
_MIN_MULTIPLY_ADDS = 2**22
#: A multiple of all sizes. A buffer with input and output channels rounded up to it is large enough for any order.
_BUFFER_MULTIPLE = 192


def find_block(images: ImagesShape, kernel: KernelShape, window: Window, fused: tuple[str, ...]) -> int | None:
    """Returns the size of the blocks in which oneDNN reads the kernel.

    Returns `None` if oneDNN reads another order, or if packing would save little time.

    **Arguments:**

    - `images`, `kernel`: shapes of arrays in float32.
    - `fused`: the operations of the same call; see `convolve_by_onednn`.
    """
    types = jax.ShapeDtypeStruct(images, jnp.float32), jax.ShapeDtypeStruct(kernel, jnp.float32)
    out = jax.eval_shape(partial(infer_output, window=window), *types)
    is_depthwise = kernel[2] == 1 < window.groups  # such a kernel is so small that copying it takes no time
    if is_depthwise or prod(out.shape[:3]) > MAX_PIXELS or out.size * prod(kernel[:3]) < _MIN_MULTIPLY_ADDS:
        return None
    return _try_blocks(images, kernel, out.shape, window, fused) if onednn.is_available() else None


@cache
def _try_blocks(
    images: ImagesShape, kernel: KernelShape, out: ImagesShape, window: Window, fused: tuple[str, ...]
) -> int | None:
    """Returns the size of blocks for which oneDNN's result equals its result for the plain kernel, bit by bit."""
    # Drawing millions of random numbers would take longer than the convolutions, so they repeat after a prime number.
    numbers = np.random.default_rng(0).random(2**16 + 1, np.float32) - 0.5

    def draw(*shape: int) -> np.ndarray:
        return np.resize(numbers, shape)

    height, width, inputs, outputs = kernel
    channels = [_round_up(number, _BUFFER_MULTIPLE) for number in (inputs, outputs // window.groups)]
    size = height * width * prod(channels) * window.groups
    added = tuple(draw(*(outputs,) if name == "BIAS" else out) for name in fused if name in ("BIAS", "BINARY_ADD"))

    @jax.jit
    def convolve(images: Array, plain: Kernel, packed: Array, added: tuple[Array, ...]) -> tuple[Array, Array]:
        call = partial(convolve_by_onednn, images, window=window, added=added, fused=fused)
        return call(plain), call(packed, packed_shape=kernel)

    plain, pixels = draw(*kernel), draw(*images)
    for block in sorted(_BLOCKS, key=lambda block: -_found[block]):
        # oneDNN may read more than the blocks if it uses another order, so the buffer is larger, and NaN shows it.
        packed = np.full(size, np.nan, np.float32)
        values = pack(plain, block, window.groups).reshape(-1)
        packed[: values.size] = values
        with jax.ensure_compile_time_eval():
            expected, found = convolve(pixels, plain, packed, added)
        # Not compared by JAX, which would take longer to compile than the convolutions.
        if np.array_equal(expected, found):
            _found[block] += 1
            return block
    return None


def pack(kernel: Kernel | np.ndarray, block: int, groups: int = 1) -> np.ndarray:
    """Returns the kernel in blocks of output channels; zeros fill the last block of each group."""
    *rest, outputs = kernel.shape
    grouped = np.asarray(kernel).reshape(*rest, groups, outputs // groups)
    padded = np.pad(grouped, [*[(0, 0)] * (len(rest) + 1), (0, -grouped.shape[-1] % block)])
    return np.ascontiguousarray(np.moveaxis(padded.reshape(*rest, -1, block), -2, 0))


def unpack(packed: PackedKernel, outputs: int, groups: int = 1) -> Kernel:
    """Returns the kernel `[kh kw i/groups o]` that `pack` divided into blocks."""
    kernel = jnp.moveaxis(packed, 0, -2)
    grouped = kernel.reshape(*kernel.shape[:-2], groups, -1)[..., : outputs // groups]
    return grouped.reshape(*kernel.shape[:-2], outputs)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
