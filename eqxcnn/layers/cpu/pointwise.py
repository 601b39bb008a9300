"""1x1 convolutions as matrix products by oneDNN."""

import jax.numpy as jnp
from jax import lax

from .implementation import Images, Kernel, Outputs, Window, implement
from .product import matrix_product

__all__ = ["POINTWISE"]


def _convolve(images: Images, kernel: Kernel, window: Window) -> Outputs:
    padding = [(0, 0, 0), *((*edge, 0) for edge in window.edges), (0, 0, 0)]
    images = lax.pad(images, jnp.zeros((), images.dtype), padding)
    images = images[:, :: window.stride[0], :: window.stride[1]]
    out = matrix_product(images.reshape(-1, images.shape[-1]), kernel[0, 0])
    return out.reshape(*images.shape[:-1], out.shape[-1])


#: The implementation for 1x1 kernels without groups, in float32.
POINTWISE = implement(_convolve)
