"""Random boxes for crops, drawn with NumPy for images that are decoded during training."""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["TRIES", "CropBox", "RandomCrop", "largest_box"]

#: Number of boxes that torchvision draws before it takes the center of the image.
TRIES = 10
#: Spawn key that separates the crops from other random streams of the same seed; see `data.batches`.
_CROP_STREAM = 4

#: Top, left, height and width of a box, in pixels.
CropBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class RandomCrop:
    """Draws the box of a random resized crop (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    The box is drawn as in torchvision's `RandomResizedCrop`: the area is uniform in `scale`, the logarithm of width /
    height is uniform between the logarithms of `ratio`, both sides are rounded to pixels, and the position is uniform.
    The first of ten draws that fits is used; if none fits, the box is the largest centered one within `ratio`.

    **Arguments:**

    - `scale`: the smallest and largest area of the box, as a fraction of the image's area.
    - `ratio`: the smallest and largest value of the box's width / height.
    - `seed`: the run's seed.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    seed: int

    def draw(self, epoch: int, row: int, height: int, width: int) -> CropBox:
        """Returns the box for an image in an epoch; the draws depend only on the seed, the epoch and `row`."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, row], spawn_key=(_CROP_STREAM,)))
        low, high = map(math.log, self.ratio)
        for _ in range(TRIES):
            area, shape = height * width * rng.uniform(*self.scale), math.exp(rng.uniform(low, high))
            box_height, box_width = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < box_height <= height and 0 < box_width <= width:
                top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
                return int(top), int(left), box_height, box_width
        box_height, box_width = largest_box(height, width, self.ratio)
        return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def largest_box(height: int, width: int, ratio: tuple[float | int, float | int]) -> tuple[int, int]:
    """Returns the `(height, width)` of the largest box that fits into an image; `ratio` limits its width / height."""
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width
