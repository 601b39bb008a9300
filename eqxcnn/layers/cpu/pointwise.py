"""1x1 convolutions as matrix products by oneDNN."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .implementation import Images, Kernel, Outputs, Window, implement
from .product import matrix_product

__all__ = ["POINTWISE", "select_pixels"]


def _convolve(images: Images, kernel: Kernel, window: Window) -> Outputs:
    pixels = select_pixels(images, window)
    out = matrix_product(pixels.reshape(-1, pixels.shape[-1]), kernel[0, 0])
    return out.reshape(*pixels.shape[:-1], out.shape[-1])


def select_pixels(images: Images, window: Window) -> Float[Array, "n h2 w2 i"]:
    """Returns the pixels to which a 1x1 kernel is applied, zeros around the images included."""
    padding = [(0, 0, 0), *((*edge, 0) for edge in window.edges), (0, 0, 0)]
    images = lax.pad(images, jnp.zeros((), images.dtype), padding)
    return images[:, :: window.stride[0], :: window.stride[1]]


#: The implementation for 1x1 kernels without groups, in float32.
POINTWISE = implement(_convolve)
