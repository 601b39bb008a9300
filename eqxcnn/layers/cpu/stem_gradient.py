"""The gradients of a convolution of images with few channels, a network's first one, as one product of matrices."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .onednn_product import product

Edges = tuple[tuple[int, int], tuple[int, int]]


def stem_gradient(
    out: Float[Array, "n h2 w2 o"], images: Float[Array, "n h w i"], kernel_size: tuple[int, int], edges: Edges
) -> tuple[Float[Array, "kh kw i o"], Float[Array, " o"]]:
    """The gradients of kernel and bias, given that of the outputs, for a stride of one.

    Two columns of outputs are one of twice the channels, which see a window one column wider: half as many windows to
    write down, and a product that is less narrow. The bias is a last pixel of each window that is always one.

    **Arguments:**

    - `out`: the gradient of the outputs.
    - `images`: what was convolved.
    - `edges`: the zeros added before and after the height and the width.
    """
    (count, height, width, n_out), (rows, columns), channels = out.shape, kernel_size, images.shape[-1]
    pairs, (top, _), (left, _) = -(-width // 2), *edges
    # The even and the odd columns on their own, so that each pixel of the windows is a run of memory.
    halves = pairs + columns // 2
    spare = (top, height + rows - 1 - top - images.shape[1], 0), (left, 2 * halves - left - images.shape[2], 0)
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *spare, (0, 0, 0)])
    split = padded.reshape(count, height + rows - 1, halves, 2, channels).transpose(3, 4, 0, 1, 2)
    split = lax.optimization_barrier(split)
    across = [split[column % 2, ..., column // 2 : column // 2 + pairs] for column in range(columns + 1)]
    across = lax.optimization_barrier(jnp.concatenate(across).reshape(-1, count, (height + rows - 1) * pairs))
    window = [across[:, :, row * pairs : (row + height) * pairs] for row in range(rows)]
    windows = jnp.concatenate([*window, jnp.ones((1, count, height * pairs), images.dtype)])
    by_pair = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), (0, 0, 0), (0, 2 * pairs - width, 0), (0, 0, 0)])
    # Written down before they change shape, or else XLA reckons the place of each number on its own.
    windows, by_pair = lax.optimization_barrier((windows, by_pair))
    found = product(windows.reshape(len(windows), -1), by_pair.reshape(-1, 2 * n_out))
    bias = found[-1].reshape(2, n_out).sum(0)
    kernels = found[:-1].reshape(rows, columns + 1, channels, 2, n_out)
    return kernels[:, :-1, :, 0] + kernels[:, 1:, :, 1], bias
