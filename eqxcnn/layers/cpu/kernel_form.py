"""The form in which inference stores a convolution's kernel, so that each call is faster."""

from typing import NamedTuple

import numpy as np

from .implementation import ImagesShape, KernelShape, Window
from .packed_kernel import MAX_PIXELS, find_block, pack
from .winograd import can_use_winograd, describe_products, transform_kernel

__all__ = ["KernelForm", "choose_form"]


class KernelForm(NamedTuple):
    """What is computed from a kernel once.

    - `is_transformed`: whether it is transformed for Winograd's algorithm; see `winograd.py`.
    - `block`: the size of the blocks in which it is packed, or `None`; see `packed_kernel.py`.
    - `groups`: the number of groups of output channels.
    """

    is_transformed: bool = False
    block: int | None = None
    groups: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether the kernel stays as it is."""
        return not self.is_transformed and self.block is None

    def apply(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the kernel `[kh kw i/groups o]` in this form."""
        kernel = transform_kernel(kernel) if self.is_transformed else kernel
        return kernel if self.block is None else pack(kernel, self.block, self.groups)


def choose_form(images: ImagesShape, kernel: KernelShape, window: Window, fused: tuple[str, ...]) -> KernelForm:
    """Returns the form that is fastest for these images.

    **Arguments:**

    - `images`, `kernel`: shapes of arrays in float32.
    - `fused`: the operations of the same call to oneDNN; see `convolve_by_onednn`.
    """
    if can_use_winograd(images, kernel, window):
        products = describe_products(images, kernel, window)
        tiles, _, product_window = products
        block = find_block(*products, ("BIAS",))
        # For a few tiles, each call would take longer to copy the larger kernel than Winograd's algorithm saves.
        if block is not None or tiles[1] > MAX_PIXELS:
            return KernelForm(True, block, product_window.groups)
    return KernelForm(False, find_block(images, kernel, window, fused), window.groups)
