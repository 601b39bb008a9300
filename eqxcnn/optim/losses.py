"""Losses of a batch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..types import BatchLogits, Labels


class MixedLabels(NamedTuple):
    """The classes of mixed images.

    - `own`, `other`: class numbers `[b]`.
    - `share`: `[b]`, from 0 to 1: how much of each image is of the first.
    """

    own: Labels
    other: Labels
    share: Float[Array, " b"]


Targets: TypeAlias = Labels | MixedLabels


@dataclass(frozen=True)
class Loss:
    """The mean loss of a batch, in float32.

    - `kind`: `cross_entropy` of the softmax; `bce`, binary cross-entropy of each class by itself, its mean over the
      classes (Wightman et al. 2021, arXiv:2110.00476, section 2.1); `focal`, cross-entropy in which each class counts
      by `(1 - p) ** gamma`, `p` being its probability (Lin et al. 2017, arXiv:1708.02002, eq. 4).
    - `label_smoothing`: share of every label spread evenly over all classes (Szegedy et al. 2016, section 7).
    - `gamma`: of `focal`.
    - `class_weights`: how much each class counts; the mean is then a weighted one, as torch's is.
    """

    kind: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    label_smoothing: float | int = 0.0
    gamma: float | int = 2.0
    class_weights: tuple[float, ...] = ()

    def __call__(self, logits: BatchLogits, targets: Targets) -> Float[Array, ""]:
        """The mean of a batch's scores `[b classes]`; of a mixed image, by the shares of its labels."""
        if not isinstance(targets, MixedLabels):
            parts = [(jnp.ones(len(targets)), targets)]
        else:
            parts = [(targets.share, targets.own), (1 - targets.share, targets.other)]
        if not self.class_weights:
            return sum((share * self.examples(logits, labels) for share, labels in parts), jnp.zeros(())).mean()
        weights = jnp.asarray(self.class_weights)
        counted = [(share * weights[labels], labels) for share, labels in parts]
        total = sum((weight * self.examples(logits, labels) for weight, labels in counted), jnp.zeros(())).sum()
        return total / sum(weight.sum() for weight, _ in counted)

    def examples(self, logits: BatchLogits, labels: Labels) -> Float[Array, " b"]:
        """The loss of each example `[b]`, all classes counting the same."""
        if self.kind == "cross_entropy":
            return cross_entropy(logits, labels, self.label_smoothing)
        logits = logits.astype("float32")
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        if self.kind == "bce":
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)
        logs = jax.nn.log_softmax(logits)
        return -(targets * (1 - jnp.exp(logs)) ** self.gamma * logs).sum(-1)


def cross_entropy(logits: BatchLogits, labels: Labels, label_smoothing: float = 0.0) -> Float[Array, " b"]:
    """Softmax cross-entropy `[b]` of scores `[b classes]` against class numbers `[b]`, in float32.

    `label_smoothing` spreads that share of each label evenly over all classes (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype("float32")
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
