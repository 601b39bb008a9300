"""Losses of a batch, one number an example."""

import jax
import optax
from jaxtyping import Array, Float

from ..types import BatchLogits, Labels


def cross_entropy(logits: BatchLogits, labels: Labels, label_smoothing: float = 0.0) -> Float[Array, " b"]:
    """Softmax cross-entropy `[b]` of scores `[b classes]` against class numbers `[b]`, in float32.

    `label_smoothing` spreads that share of each label evenly over all classes (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype("float32")
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
