"""Resolves the image size, the way of resizing and the normalization of a run from its recipe and data."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int, Num

from .. import registry
from ..data import DataInfo, EncodedImages
from ..errors import InputError
from ..images import Preprocess
from ..recipe import OWN, Recipe

__all__ = [
    "check_normalization",
    "pixel_statistics",
    "resolve_geometry",
    "resolve_image_size",
    "resolve_normalization",
]

#: If images are decoded during training, mean and standard deviation are measured on this number of images.
_SAMPLE = 500


def resolve_image_size(recipe: Recipe, info: DataInfo) -> tuple[int, int]:
    """Returns the recipe's image size if it is set. Otherwise returns the size of the data's images, or the model's
    default size if the images vary in size or are too small for the model."""
    if recipe.image_size is not None:
        return recipe.image_size
    if recipe.model == OWN:
        if info.image_size is None:
            raise InputError(
                "`image_size` is needed, because neither the data nor your `model` determines it: give height and width"
            )
        return info.image_size
    model = registry.variant(recipe.model)
    fits = info.image_size is not None and min(info.image_size) >= model.smallest
    return info.image_size if fits and info.image_size else model.input[:2]


def resolve_geometry(recipe: Recipe, info: DataInfo, warm: Preprocess | None, is_resumed: bool = False) -> Preprocess:
    """Returns the preprocessing without normalization: the recipe's settings, with their defaults filled in.

    By default, images are stretched if all have the same size, since a crop could cut off their subject. Images of
    different sizes, such as photographs, are resized in the way that the initial weights expect; if this is not known,
    they are cropped to the largest center crop.

    **Arguments:**

    - `warm`: the preprocessing that the initial weights were trained with, if known.
    - `is_resumed`: whether the run exists already. If the recipe of an existing run does not set `resize`, an older
        version of this package started the run, and that version stretched all images.

    **Raises:** `InputError` for settings that contradict each other.
    """
    size = resolve_image_size(recipe, info)
    is_stretched = is_resumed or not info.varies_in_size
    usual = Preprocess(size, info.channels, "stretch" if is_stretched else "crop")
    if not is_stretched and warm is not None:
        usual = replace(usual, resize=warm.resize, crop_fraction=warm.crop_fraction)
    if warm is not None:
        usual = replace(usual, interpolation=warm.interpolation)
    if recipe.resize is not None:
        # A crop fraction is valid only for the `resize` setting that it was chosen for.
        usual = replace(
            usual, resize=recipe.resize, crop_fraction=usual.crop_fraction if recipe.resize == usual.resize else 1.0
        )
    chosen = {name: getattr(recipe, name) for name in ("crop_fraction", "interpolation")}
    return replace(usual, **{name: value for name, value in chosen.items() if value is not None})


def check_normalization(recipe: Recipe, info: DataInfo) -> None:
    """Checks that the recipe's mean and standard deviation have one number per channel of the images.

    **Raises:** `InputError` naming the setting.
    """
    for name in ("mean", "std"):
        value = getattr(recipe, name)
        if value is not None and len(value) != info.channels:
            raise InputError(
                f"`{name}` (={list(value)}) must have one number per channel, and the images have {info.channels} "
                f"channel{'s' * (info.channels > 1)}"
            )


def resolve_normalization(
    recipe: Recipe,
    geometry: Preprocess,
    warm: Preprocess | None,
    images: Num[np.ndarray, "n h w c"] | EncodedImages,
    rows: Int[np.ndarray, " k"],
) -> Preprocess:
    """Returns `geometry` with a mean and standard deviation: those that the recipe sets, else those stored with the
    initial weights, else those measured on the images at `rows`.

    If the images are decoded during training, only 500 images, spread over the rows, are measured.
    """
    if recipe.mean is not None and recipe.std is not None:
        return replace(geometry, mean=recipe.mean, std=recipe.std)
    if warm is not None and warm.mean is not None and warm.std is not None and len(warm.mean) == images.shape[-1]:
        return replace(geometry, mean=warm.mean, std=warm.std)
    if isinstance(images, EncodedImages) and len(rows) > _SAMPLE:
        # A stream's first rows are measured: rows spread over the stream would require reading the whole stream.
        last = _SAMPLE - 1 if images.is_stream else len(rows) - 1
        rows = rows[np.linspace(0, last, _SAMPLE).astype(np.int64)]
    mean, std = pixel_statistics(images, rows)
    return replace(geometry, mean=tuple(mean.round(6).tolist()), std=tuple(std.round(6).tolist()))


def pixel_statistics(
    images: Num[np.ndarray, "n h w c"] | EncodedImages, rows: Int[np.ndarray, " k"], chunk_size: int = 200
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Returns mean and standard deviation per channel of the images at `rows`, on the scale [0, 1].

    The sums are exact for `uint8` pixels, and in float64 for floating-point images. Unreadable images that are skipped
    do not count.

    **Raises:** `InputError` if all of the images are unreadable.
    """
    is_pixels = images.dtype == np.uint8
    # Each pixel is first summed over the images of a chunk, and the results are then summed over all pixels. A single
    # sum over all axes but the last would take ten times as long. The sum of 65,536 squared pixels fits into 32 bits.
    one, square, of_chunk, total = (255, np.uint16, np.uint32, np.int64) if is_pixels else (1, *[np.float64] * 3)
    sums, squares = (np.zeros(images.shape[-1], total) for _ in range(2))
    count = 0
    for start in range(0, len(rows), chunk_size):
        chosen = rows[start : start + chunk_size]
        chunk = images.readable(chosen) if isinstance(images, EncodedImages) else images[chosen]
        sums += chunk.sum(0, dtype=of_chunk).sum((0, 1), dtype=total)
        squares += np.square(chunk, dtype=square).sum(0, dtype=of_chunk).sum((0, 1), dtype=total)
        count += chunk[..., 0].size
    if count == 0:
        raise InputError(f"none of the {len(rows):,} training images can be decoded: repair them")
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A constant channel has a standard deviation of 0, which cannot be a divisor; 1 leaves the channel unscaled.
    return mean / one, np.where(std < 1e-4 * one, one, std) / one
