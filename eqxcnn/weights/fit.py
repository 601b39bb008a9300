"""Weights fitted to a model of another head, or of images with other channels."""

import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError


def fitted(
    tensors: Mapping[str, np.ndarray], places: Mapping[str, tuple[int, ...]], origin: str
) -> dict[str, np.ndarray]:
    """The tensors for a model's places, but for the head's where that is of other classes.

    With other channels the stem's kernels are summed over the channels (for one), or repeated and scaled: what they
    answer to a gray image stays.

    **Arguments:**

    - `tensors`: by the names that `to_tensors` gives.
    - `places`: the model's shapes, by the same names.
    - `origin`: what the tensors are called in errors.

    **Raises:** `InputError` naming a tensor which is missing, left over or of a shape that nothing can be made of.
    """
    heads = [{name: x.shape for name, x in tensors.items() if name.startswith("head.")}]
    heads += [{name: shape for name, shape in places.items() if name.startswith("head.")}]
    strange = (set(tensors) ^ set(places)) - set(heads[0]) - set(heads[1])
    if strange:
        raise InputError(f"{origin} does not fit: `{min(strange)}` is in one of them and not in the other")
    if heads[0] != heads[1]:
        places = {name: shape for name, shape in places.items() if name not in heads[1]}
    return {name: _on_channels(name, tensors[name], shape, origin) for name, shape in places.items()}


def _on_channels(name: str, given: np.ndarray, shape: tuple[int, ...], origin: str) -> np.ndarray:
    """A tensor, or the stem's kernel `[kh kw i o]` on as many channels as `shape` has."""
    if given.shape == shape:
        return given
    as_stem = len(shape) == given.ndim == 4 and (*given.shape[:2], given.shape[3]) == (*shape[:2], shape[3])
    if not as_stem:
        raise InputError(f"{origin} does not fit: `{name}` is {list(given.shape)}, expected {list(shape)}")
    channels, there = shape[2], given.shape[2]
    if channels == 1:
        return given.sum(axis=2, keepdims=True)
    repeated = np.concatenate([given] * math.ceil(channels / there), axis=2)[:, :, :channels]
    return repeated * np.float32(there / channels)
