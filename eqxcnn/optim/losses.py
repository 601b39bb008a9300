"""Losses of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..errors import InputError
from ..types import BatchLogits, Labels

__all__ = ["FunctionLoss", "Loss", "MixedLabels", "Targets", "cross_entropy"]


class MixedLabels(NamedTuple):
    """The labels of images that were mixed in pairs.

    - `own`, `other`: the classes `[b]` of each image and of its partner.
    - `share`: the weight `[b]` of the class in `own`, from 0 to 1; the class in `other` has weight `1 - share`.
    """

    own: Labels
    other: Labels
    share: Float[Array, " b"]


Targets: TypeAlias = Labels | MixedLabels


@dataclass(frozen=True)
class Loss:
    """The mean loss of a batch, in float32.

    - `kind`: `cross_entropy` of the softmax; `bce`, binary cross-entropy averaged over the classes (Wightman et al.
      2021, arXiv:2110.00476, section 2.1); or `focal`, cross-entropy with each class weighted by `(1 - p) ** gamma`,
      where `p` is its probability (Lin et al. 2017, arXiv:1708.02002, eq. 4).
    - `label_smoothing`: fraction of each label that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    - `gamma`: focusing parameter of the focal loss; 0 gives cross-entropy.
    - `class_weights`: weight of each class; the mean is then a weighted mean, as in torch. Empty for equal weights.
    """

    kind: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    label_smoothing: float | int = 0.0
    gamma: float | int = 2.0
    class_weights: tuple[float, ...] = ()

    def __call__(self, logits: BatchLogits, targets: Targets) -> Float[Array, ""]:
        """Returns the mean loss of logits `[b classes]`; each label of a mixed image is weighted by its share."""
        if not isinstance(targets, MixedLabels):
            parts = [(jnp.ones(len(targets)), targets)]
        else:
            parts = [(targets.share, targets.own), (1 - targets.share, targets.other)]
        if not self.class_weights:
            return sum((share * self.per_example(logits, labels) for share, labels in parts), jnp.zeros(())).mean()
        weights = jnp.asarray(self.class_weights)
        weighted = [(share * weights[labels], labels) for share, labels in parts]
        total = sum((weight * self.per_example(logits, labels) for weight, labels in weighted), jnp.zeros(())).sum()
        return total / sum(weight.sum() for weight, _ in weighted)

    def per_example(self, logits: BatchLogits, labels: Labels) -> Float[Array, " b"]:
        """Returns the loss `[b]` of each example, without class weights."""
        if self.kind == "cross_entropy":
            return cross_entropy(logits, labels, self.label_smoothing)
        logits = logits.astype("float32")
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.label_smoothing)
        if self.kind == "bce":
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)
        log_probabilities = jax.nn.log_softmax(logits)
        return -(targets * (1 - jnp.exp(log_probabilities)) ** self.gamma * log_probabilities).sum(-1)


@dataclass(frozen=True)
class FunctionLoss:
    """The mean of a user's loss over a batch.

    - `function`: maps logits `[b classes]` and labels `[b]` to the loss of each image `[b]`, or to the mean loss.
    """

    function: Callable[..., Any]

    def __call__(self, logits: BatchLogits, targets: Targets) -> Float[Array, ""]:
        """Returns the mean loss; each label of a mixed image is weighted by its share.

        **Raises:** `InputError` for a function that returns a wrong shape or type, or a mean for mixed images.
        """
        if not isinstance(targets, MixedLabels):
            return self._call(logits, targets).mean()
        own, other = self._call(logits, targets.own), self._call(logits, targets.other)
        if own.ndim == 0:
            raise InputError("`loss` returns the mean over a batch: mixup and CutMix need the loss of each image")
        return (targets.share * own + (1 - targets.share) * other).mean()

    def _call(self, logits: BatchLogits, labels: Labels) -> Array:
        found = self.function(logits, labels)
        if not eqx.is_array_like(found):
            raise InputError(
                f"`loss` returned a {type(found).__name__}: return the loss of each image, or the mean loss"
            )
        losses = jnp.asarray(found)
        if losses.shape not in ((), labels.shape) or not jnp.issubdtype(losses.dtype, jnp.floating):
            raise InputError(
                f"`loss` returned {losses.dtype} of shape {losses.shape}: return one floating-point number per image, "
                f"{labels.shape}, or the mean loss"
            )
        return losses.astype(jnp.float32)


def cross_entropy(logits: BatchLogits, labels: Labels, label_smoothing: float = 0.0) -> Float[Array, " b"]:
    """Returns the softmax cross-entropy `[b]` of logits `[b classes]` against class numbers `[b]`, in float32.

    `label_smoothing` is the fraction of each label that is spread evenly over all classes (Szegedy et al. 2016,
    section 7).
    """
    logits = logits.astype("float32")
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
