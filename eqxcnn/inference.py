"""A trained classifier as one object, from images to scores or class names."""

import contextlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from .data.array_checks import check_unmasked
from .errors import InputError
from .forward_pass import check_pixels
from .fused_jit import FusedJit
from .images import Preprocess
from .images.decode import Interpolation
from .images.preprocess import Resize
from .registry import has_type
from .saved_config import check_normalization, shortest
from .types import BatchLogits, Logits, ModelState, Network
from .views import eval_logits

__all__ = ["ImageClassifier", "as_array", "rank_classes"]


class ImageClassifier(eqx.Module):
    """A model with its normalization, preprocessing and class names.

    - `name`: the model's name in the zoo, or the qualified name of its class.
    - `model`, `state`: in training or eval mode; evaluation always uses eval mode.
    - `mean`, `std`: the normalization of each channel, for pixels in [0, 1].
    - `image_size`: `(height, width)` in pixels.
    - `class_names`: the name of each class, in the order of the scores.
    - `architecture`: the additional keyword arguments of the model's constructor, as `(name, value)` pairs.
    - `resize`, `crop_fraction`, `interpolation`: see `eqxcnn.data.Preprocess`.
    """

    model: Network
    state: ModelState
    mean: Float[Array, " c"]
    std: Float[Array, " c"]
    name: str = eqx.field(static=True)
    image_size: tuple[int, int] = eqx.field(static=True)
    class_names: tuple[str, ...] = eqx.field(static=True)
    architecture: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())
    resize: Resize = eqx.field(static=True, default="stretch")
    crop_fraction: float = eqx.field(static=True, default=1.0)
    interpolation: Interpolation = eqx.field(static=True, default="bilinear")

    def __check_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(f"`mean` ({len(self.mean)} numbers) and `std` ({len(self.std)}) must have the same length")
        if not has_type(self.class_names, tuple[str, ...]) or not self.class_names:
            raise InputError("`class_names` must be a tuple of one string per class")
        if not has_type(self.image_size, tuple[int, int]) or min(self.image_size) < 1:
            raise InputError(f"`image_size` (={self.image_size}) must be (height, width) in pixels, each at least 1")
        with contextlib.suppress(jax.errors.TracerArrayConversionError):  # while tracing, values are unknown
            check_normalization(np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64))

    @property
    def in_channels(self) -> int:
        """The number of image channels: 1 for gray, 3 for RGB."""
        return len(self.mean)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that turns an image into an input of the classifier."""
        mean, std = (tuple(shortest(each)) for each in (self.mean, self.std))
        how = self.resize, self.crop_fraction, self.interpolation
        return Preprocess(self.image_size, self.in_channels, *how, mean=mean, std=std)

    def __call__(self, images: Any) -> BatchLogits | Logits:
        """Returns the scores of images, before softmax.

        **Arguments:**

        - `images`: `[b h w c]`, or one image `[h w c]`, with the classifier's image size and channels, `uint8` or
          floating point in [0, 1]. `prepare` converts an image file of any size to such an array.

        **Returns:** `[b classes]`, or `[classes]` for one image.

        **Raises:** `InputError` for an unexpected shape, dtype or value.
        """
        images = as_array(images, "`images`")
        expected = (*self.image_size, self.in_channels)
        if images.shape[-3:] != expected or images.ndim not in (3, 4):
            raise InputError(
                f"`images` of shape {images.shape} must be (batch, {', '.join(map(str, expected))}) or {expected}, "
                "channels last; `prepare` resizes any image to that shape"
            )
        check_pixels(images)
        return _logits(self, images) if images.ndim == 4 else _logits(self, images[None])[0]

    def top_k(self, images: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns the names and probabilities of the `k` most probable classes of each image, most probable first.

        **Arguments:**

        - `images`: as for `__call__`.
        - `k`: the number of classes; if there are fewer classes, all are returned.

        **Raises:** `InputError` if `k` is less than 1, and whenever `__call__` raises it.
        """
        if not has_type(k, int) or k < 1:
            raise InputError(f"`k` (={k}) must be an integer, 1 or more")
        # Computed in NumPy, because JAX would compile a program for each of these operations.
        logits = np.atleast_2d(np.asarray(self(images), np.float32))
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        return [
            [(self.class_names[index], float(row[index])) for index in rank_classes(row, k)] for row in probabilities
        ]

    def prepare(self, image: Any) -> UInt8[np.ndarray, "h w c"]:
        """Decodes and resizes one image as in the classifier's evaluation.

        **Arguments:**

        - `image`: a path, the bytes of an image file, or a `PIL.Image`.

        **Raises:** `InputError` if the image cannot be read.
        """
        return self.preprocess(image)


def as_array(images: Any, what: str) -> Array | np.ndarray:
    """Returns images as an array of numbers; `what` is the plural subject of error messages.

    **Raises:** `InputError` for masked arrays, and for anything that is not an array of numbers.
    """
    # The usual NumPy arrays are returned unchanged, because `jnp.asarray` would compile a program for each shape.
    if type(images) is np.ndarray and images.dtype in (np.uint8, np.float32):
        return images
    check_unmasked(images, what)
    try:
        return jnp.asarray(images)
    except (TypeError, ValueError, OverflowError, SyntaxError) as error:
        raise InputError(f"{what} of type {type(images).__name__} are not an array of numbers: {error}") from error


def rank_classes(probabilities: Float[np.ndarray, " classes"], k: int) -> Int[np.ndarray, " k"]:
    """Returns the indices of the `k` most probable classes, most probable first; ties keep the order of the classes."""
    return np.argsort(-probabilities, kind="stable")[:k]


@FusedJit
def _logits(classifier: ImageClassifier, images: Array) -> BatchLogits:
    return eval_logits(classifier.model, classifier.state, images, classifier.mean, classifier.std)
