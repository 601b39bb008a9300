"""Metrics of a classifier: sums over images on the device, converted to a number once, at the end."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .errors import InputError
from .named_calls import call_by_name
from .ranges import Range, check_arguments
from .types import BatchLogits, Labels

__all__ = [
    "METRICS",
    "Mask",
    "Metric",
    "accuracy",
    "balanced_accuracy",
    "brier_score",
    "build",
    "expected_calibration_error",
    "per_class_accuracy",
    "top_k",
]

#: True for the images of a batch, false for its padding.
Mask: TypeAlias = Bool[Array, " b"]


@dataclass(frozen=True)
class Metric:
    """A score of a classifier on labeled images.

    - `sums`: `(logits [b k], labels [b], mask [b]) -> pytree of arrays`, the sums over the images inside the mask. The
      function is compiled, and its results for all batches are added.
    - `result`: maps the total sums, as NumPy arrays, to a number, or to a list of numbers, for example one per class.
    - `is_higher_better`: whether early stopping and `keep: best` look for high values.
    """

    sums: Callable[[BatchLogits, Labels, Mask], PyTree]
    result: Callable[[Any], float | int | list[float | None]]
    is_higher_better: bool = True


@cache
@check_arguments
def top_k(k: Annotated[int, Range(1, 1_000_000)]) -> Metric:
    """Returns the fraction of the images whose label has one of the `k` highest scores; among equal scores,
    the class with the lower number ranks higher.

    **Raises:** `InputError` if `k` is less than 1.
    """

    def sums(logits: BatchLogits, labels: Labels, mask: Mask) -> tuple[Int[Array, ""], Int[Array, ""]]:
        own = jnp.take_along_axis(logits, labels[:, None], axis=1)
        is_lower_class = jnp.arange(logits.shape[1])[None] < labels[:, None]
        # NaN ranks highest, as in `argmax`.
        is_nan, own_is_nan = jnp.isnan(logits), jnp.isnan(own)
        is_equal = (logits == own) | (is_nan & own_is_nan)
        is_higher = (logits > own) | (is_nan & ~own_is_nan) | (is_equal & is_lower_class)
        return (mask & (is_higher.sum(1) < k)).sum(), mask.sum()

    return Metric(sums, _divide)


@cache
def accuracy() -> Metric:
    """Returns the fraction of the images whose label has the highest score."""
    return top_k(1)


@cache
def per_class_accuracy() -> Metric:
    """Returns the fraction of each class's images that are predicted as that class (its recall); `None` for a class
    without images."""
    return Metric(_sum_hits_per_class, _divide_per_class)


@cache
def balanced_accuracy() -> Metric:
    """Returns the mean of `per_class_accuracy` over the classes that have images (Brodersen et al. 2010)."""

    def result(sums: Any) -> float:
        return float(np.mean([recall for recall in _divide_per_class(sums) if recall is not None]))

    return Metric(_sum_hits_per_class, result)


@cache
@check_arguments
def expected_calibration_error(bins: Annotated[int, Range(1, 10_000)] = 15) -> Metric:
    """Returns the mean distance between confidence (the highest probability) and accuracy in bins of equal width,
    weighted by each bin's number of images (Guo et al. 2017, equation 3, arXiv:1706.04599). Lower is better.

    **Raises:** `InputError` if `bins` is less than 1.
    """

    def sums(logits: BatchLogits, labels: Labels, mask: Mask) -> Float[Array, "bins 3"]:
        confidence = jax.nn.softmax(logits).max(1)
        # Bins exclude their lower end, as in the paper.
        bin_of = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
        is_right = (logits.argmax(1) == labels).astype(confidence.dtype)
        rows = jnp.stack([jnp.ones_like(confidence), confidence, is_right], axis=1)
        return jnp.zeros((bins, 3), confidence.dtype).at[bin_of].add(jnp.where(mask[:, None], rows, 0))

    def result(sums: Any) -> float:
        count, confidence, right = np.asarray(sums, np.float64).T
        return float(np.abs(confidence - right).sum() / count.sum())

    return Metric(sums, result, is_higher_better=False)


@cache
def brier_score() -> Metric:
    """Returns the mean over images of the squared distance between the class probabilities and the one-hot label
    (Brier 1950, equation 2), from 0 to 2. Lower is better."""

    def sums(logits: BatchLogits, labels: Labels, mask: Mask) -> tuple[Float[Array, ""], Int[Array, ""]]:
        errors = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
        return jnp.where(mask, jnp.square(errors).sum(1), 0).sum(), mask.sum()

    return Metric(sums, _divide, is_higher_better=False)


#: The metrics that a recipe can name.
METRICS: dict[str, Callable[..., Metric]] = {
    "accuracy": accuracy,
    "top_k": top_k,
    "per_class_accuracy": per_class_accuracy,
    "balanced_accuracy": balanced_accuracy,
    "expected_calibration_error": expected_calibration_error,
    "brier_score": brier_score,
}


def build(entries: Sequence[str]) -> dict[str, Metric]:
    """Builds the metrics of a recipe's `metrics` setting: `top_k(5)` gives a metric called `top_k_5`.

    **Raises:** `InputError` for an unknown name or unsuitable arguments.
    """
    try:
        metrics = [call_by_name(entry, METRICS, "metric") for entry in entries]
    except InputError as error:
        raise InputError(f"in `metrics`, {error}") from error
    names = [re.sub(r"\W+", "_", entry.strip()).strip("_") for entry in entries]
    return dict(zip(names, metrics, strict=True))


def _divide(sums: Any) -> float:
    total, count = sums
    return float(total) / float(count)


def _sum_hits_per_class(logits: BatchLogits, labels: Labels, mask: Mask) -> Int[Array, "classes 2"]:
    is_right = logits.argmax(1) == labels
    rows = jnp.stack([mask & is_right, mask], axis=1).astype(jnp.int32)
    return jnp.zeros((logits.shape[1], 2), jnp.int32).at[labels].add(rows)


def _divide_per_class(sums: Any) -> list[float | None]:
    return [int(right) / int(count) if count else None for right, count in np.asarray(sums)]
