"""The network behind the service, compiled for a few fixed batch sizes before the first request."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from ..errors import InputError
from ..explain import grad_cam
from ..fused_jit import FusedJit
from ..inference import ImageClassifier
from ..views import eval_logits

__all__ = ["Predictor", "batch_sizes"]


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """Returns 1, 2, 4 and so on, up to the first power of two that is at least `max_batch`."""
    return tuple(1 << exponent for exponent in range((max_batch - 1).bit_length() + 1))


class Predictor:
    """Classifies batches of at most `max_batch` images; the length of each batch is padded to the next power of two.

    All calls must come from one thread.

    - `has_heat`: whether Grad-CAM supports the network; known after `compile`.
    """

    def __init__(self, classifier: ImageClassifier, max_batch: int) -> None:
        self.classifier, self.sizes, self.has_heat = classifier, batch_sizes(max_batch), False
        self._probabilities = FusedJit(_probabilities)
        self._empty = np.zeros((*classifier.image_size, classifier.in_channels), np.uint8)

    def compile(self) -> None:
        """Compiles a program for each batch size, and one for Grad-CAM if it supports the network."""
        for size in self.sizes:
            self.classify([self._empty] * size)
        try:
            grad_cam(self.classifier, self._empty)
            self.has_heat = True
        except InputError:  # Grad-CAM does not support networks such as `mlp` or a vision transformer
            self.has_heat = False

    def classify(self, images: Sequence[UInt8[np.ndarray, "h w c"]]) -> Float32[np.ndarray, "n classes"]:
        """Returns the probabilities of each image."""
        size = next(size for size in self.sizes if size >= len(images))
        batch = np.stack([*images, *[self._empty] * (size - len(images))])
        return np.asarray(self._probabilities(self.classifier, batch))[: len(images)]

    def heat(self, image: UInt8[np.ndarray, "h w c"], target: int) -> Float32[np.ndarray, "h w"] | None:
        """Returns the Grad-CAM of a class; `None` if Grad-CAM does not support the network."""
        return grad_cam(self.classifier, image, target) if self.has_heat else None


def _probabilities(classifier: ImageClassifier, images: UInt8[Array, "b h w c"]) -> Float[Array, "b classes"]:
    logits = eval_logits(classifier.model, classifier.state, images, classifier.mean, classifier.std)
    return jax.nn.softmax(logits.astype(jnp.float32))
