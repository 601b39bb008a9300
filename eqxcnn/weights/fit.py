"""Adapts weights to a model with a different head or different image channels."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ..errors import InputError

__all__ = ["fit_tensors"]


def fit_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], origin: str
) -> dict[str, np.ndarray]:
    """Converts tensors to the shapes of a model; leaves out the head if the number of classes differs.

    If the number of image channels differs, the stem's kernels are summed over the channels (for one channel), or
    repeated and scaled (for several). Either way, the response to a gray image stays the same.

    **Arguments:**

    - `tensors`: the tensors, by the names that `to_tensors` gives.
    - `shapes`: the shapes of the model's tensors, by the same names.
    - `origin`: the subject of error messages, such as a file name.

    **Raises:** `InputError` that names a tensor that is missing, unexpected or not floating point, or whose shape
    cannot be adapted.
    """
    given_head = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("head.")}
    head = {name: shape for name, shape in shapes.items() if name.startswith("head.")}
    unmatched = (set(tensors) ^ set(shapes)) - set(given_head) - set(head)
    if unmatched:
        name = min(unmatched)
        raise InputError(f"{origin} does not fit: `{name}` is {'unexpected' if name in tensors else 'missing'}")
    if given_head != head:
        shapes = {name: shape for name, shape in shapes.items() if name not in head}
    return {name: _fit_channels(name, tensors[name], shape, origin) for name, shape in shapes.items()}


def _fit_channels(name: str, tensor: np.ndarray, shape: tuple[int, ...], origin: str) -> np.ndarray:
    """Returns the tensor in float32; adapts the input channels of a kernel `[kh kw i o]` to `shape`."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(f"{origin} does not fit: `{name}` is {tensor.dtype}, expected float32")
    tensor = tensor.astype(np.float32, copy=False)
    if tensor.shape == shape:
        return tensor
    is_kernel = len(shape) == tensor.ndim == 4 and (*tensor.shape[:2], tensor.shape[3]) == (*shape[:2], shape[3])
    if not is_kernel:
        raise InputError(f"{origin} does not fit: `{name}` is {list(tensor.shape)}, expected {list(shape)}")
    channels, given_channels = shape[2], tensor.shape[2]
    if channels == 1:
        return tensor.sum(axis=2, keepdims=True)
    repeated = np.concatenate([tensor] * math.ceil(channels / given_channels), axis=2)[:, :, :channels]
    return repeated * np.float32(given_channels / channels)
