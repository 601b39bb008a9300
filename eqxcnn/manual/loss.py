"""Softmax cross-entropy, averaged over a batch."""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..types import BatchLogits, Labels

#: The classes' probabilities, and the distribution they should have.
LossCache: TypeAlias = tuple[Float[Array, "b classes"], Float[Array, "b classes"]]


def softmax_cross_entropy_forward(
    logits: BatchLogits, labels: Labels, label_smoothing: float = 0.0
) -> tuple[Float[Array, ""], LossCache]:
    """The batch's mean of `-sum(target * log softmax(logits))`.

    **Arguments:**

    - `logits`: scores `[b classes]`.
    - `labels`: class numbers `[b]`.
    - `label_smoothing`: the share of each label that is spread evenly over all classes (Szegedy et al. 2016, sec. 7).

    **Returns:** the loss, and what `softmax_cross_entropy_backward` needs.
    """
    classes = logits.shape[-1]
    one_hot = (labels[:, None] == jnp.arange(classes)).astype(logits.dtype)
    targets = (1 - label_smoothing) * one_hot + label_smoothing / classes
    # Shifting a row changes no softmax, and keeps `exp` from overflowing.
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))
    loss = -(targets * log_probabilities).sum(-1).mean()
    return loss, (jnp.exp(log_probabilities), targets)


def softmax_cross_entropy_backward(cache: LossCache) -> BatchLogits:
    """The loss's gradient by the scores."""
    probabilities, targets = cache
    return (probabilities - targets) / targets.shape[0]
