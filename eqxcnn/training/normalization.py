"""What pixels are normalized by."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..data import DataInfo
from ..errors import InputError
from ..recipe.recipe import Recipe
from .warm_start import WarmStart


def check_normalization(recipe: Recipe, info: DataInfo) -> None:
    """Refuses a mean or a deviation of another number of channels than the images have."""
    for name in ("mean", "std"):
        value = getattr(recipe, name)
        if value is not None and len(value) != info.channels:
            raise InputError(
                f"`{name}` (={list(value)}) must have one number a channel, and the images have {info.channels}"
            )


def normalization(
    recipe: Recipe, warm: WarmStart | None, images: UInt8[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The recipe's mean and deviation, else those of the weights it starts from, else as measured on these rows."""
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    if warm is not None and warm.moments is not None and len(warm.moments[0]) == images.shape[-1]:
        return warm.moments
    mean, std = pixel_statistics(images, rows)
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def pixel_statistics(
    images: UInt8[np.ndarray, "n h w c"], rows: Int[np.ndarray, " k"], at_once: int = 1000
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean and deviation a channel of these rows' pixels on the scale [0, 1], summed exactly in whole numbers."""
    total, squares = (np.zeros(images.shape[-1], np.int64) for _ in range(2))
    for start in range(0, len(rows), at_once):
        chunk = images[rows[start : start + at_once]].astype(np.uint16)
        total += chunk.sum((0, 1, 2), dtype=np.int64)
        squares += np.square(chunk).sum((0, 1, 2), dtype=np.int64)
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    # A channel of one color has no deviation to divide by; 1 leaves it as it is.
    return mean / 255, np.where(std == 0, 255, std) / 255
