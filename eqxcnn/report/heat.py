"""Grad-CAM of the images that a report shows."""

import numpy as np
from jaxtyping import Float32, Int, Num

from ..errors import InputError
from ..explain import grad_cam
from ..inference import ImageClassifier
from ..runtime.promotion import standard_promotion

__all__ = ["compute_heat"]


@standard_promotion()
def compute_heat(
    classifier: ImageClassifier, images: Num[np.ndarray, "n h w c"], targets: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "n h w"] | None:
    """Computes the Grad-CAM of one class per image, with one compiled program.

    **Arguments:**

    - `images`: at least one image, `uint8` or in [0, 1].
    - `targets`: the index of a class for each image.

    **Returns:** heat in [0, 1]; `None` if Grad-CAM does not support the network.
    """
    try:
        return np.stack([grad_cam(classifier, *pair) for pair in zip(images, targets.tolist(), strict=True)])
    except InputError:  # Grad-CAM does not support networks such as `mlp` or a vision transformer
        return None
