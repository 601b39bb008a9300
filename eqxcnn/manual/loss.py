"""Softmax cross-entropy, averaged over a batch, and its gradient."""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..types import BatchLogits, Labels

__all__ = ["LossCache", "softmax_cross_entropy_backward", "softmax_cross_entropy_forward"]

#: The predicted probabilities, and the target probabilities.
LossCache: TypeAlias = tuple[Float[Array, "b classes"], Float[Array, "b classes"]]


def softmax_cross_entropy_forward(
    logits: BatchLogits, labels: Labels, label_smoothing: float = 0.0
) -> tuple[Float[Array, ""], LossCache]:
    """Computes the mean of `-sum(target * log(softmax(logits)))` over the batch.

    **Arguments:**

    - `logits`: scores `[b classes]`.
    - `labels`: class indices `[b]`.
    - `label_smoothing`: fraction of each target spread evenly over all classes (Szegedy et al. 2016, section 7).

    **Returns:** the loss and the cache for `softmax_cross_entropy_backward`.
    """
    classes = logits.shape[-1]
    one_hot = (labels[:, None] == jnp.arange(classes)).astype(logits.dtype)
    targets = (1 - label_smoothing) * one_hot + label_smoothing / classes
    # Softmax is invariant to shifting a row; this shift keeps `exp` from overflowing.
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))
    loss = -(targets * log_probabilities).sum(-1).mean()
    return loss, (jnp.exp(log_probabilities), targets)


def softmax_cross_entropy_backward(cache: LossCache) -> BatchLogits:
    """Returns the gradient of the loss with respect to the logits."""
    probabilities, targets = cache
    return (probabilities - targets) / targets.shape[0]
