"""The kernel and bias gradients of a network's first convolution, as one matrix product.

The first convolution has few input channels and very many positions. Its kernel gradient is therefore a small matrix
that is a sum over all positions. The convolutions of XLA and of oneDNN both compute such a gradient slowly. Here the
windows of all images become the columns of a matrix, which is multiplied by the gradient of the outputs.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..sizes import Edges, Pair
from .product import matrix_product

__all__ = ["stem_gradient"]


def stem_gradient(
    out: Float[Array, "n h2 w2 o"], images: Float[Array, "n h w i"], kernel_size: Pair, edges: Edges
) -> tuple[Float[Array, "kh kw i o"], Float[Array, " o"]]:
    """Returns the gradients of kernel and bias for stride 1 and dilation 1.

    Neighboring output columns are treated in pairs. A pair has `2 * o` channels, and its window is one column wider
    than the kernel. That halves the number of windows and gives the product more columns. A constant 1 at the end of
    each window yields the gradient of the bias.

    **Arguments:**

    - `out`: the gradient of the outputs.
    - `images`: the inputs of the convolution.
    - `edges`: the zeros added before and after the height and the width.
    """
    (count, height, width, n_out), (rows, columns), channels = out.shape, kernel_size, images.shape[-1]
    pairs, (top, _), (left, _) = -(-width // 2), *edges
    # Even and odd columns are separated, so that for each pixel of the window, the values of all pairs are contiguous.
    halves = pairs + columns // 2
    padding = (top, height + rows - 1 - top - images.shape[1], 0), (left, 2 * halves - left - images.shape[2], 0)
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    split = padded.reshape(count, height + rows - 1, halves, 2, channels).transpose(3, 4, 0, 1, 2)
    split = lax.optimization_barrier(split)
    across = [split[column % 2, ..., column // 2 : column // 2 + pairs] for column in range(columns + 1)]
    across = lax.optimization_barrier(jnp.concatenate(across).reshape(-1, count, (height + rows - 1) * pairs))
    window = [across[:, :, row * pairs : (row + height) * pairs] for row in range(rows)]
    windows = jnp.concatenate([*window, jnp.ones((1, count, height * pairs), images.dtype)])
    out_pairs = lax.pad(out, jnp.zeros((), out.dtype), [(0, 0, 0), (0, 0, 0), (0, 2 * pairs - width, 0), (0, 0, 0)])
    # The barriers make XLA write each step to memory. Without them, XLA computes the source index of each element.
    windows, out_pairs = lax.optimization_barrier((windows, out_pairs))
    product = matrix_product(windows.reshape(len(windows), -1), out_pairs.reshape(-1, 2 * n_out))
    bias = product[-1].reshape(2, n_out).sum(0)
    # The second column of each pair sees the window shifted by one column.
    kernels = product[:-1].reshape(rows, columns + 1, channels, 2, n_out)
    return kernels[:, :-1, :, 0] + kernels[:, 1:, :, 1], bias
