"""Evaluation of a classifier on labeled images: each image counts once, in batches of one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ..data import eval_batches
from ..optim.losses import cross_entropy
from ..runtime.compile import async_jit
from ..runtime.promotion import standard_promotion
from ..types import BatchLogits, Classifier, Labels, Pixels
from ..views import NUM_VIEWS, Views, eval_logits

#: Images per batch, unless a recipe says otherwise.
EVAL_BATCH_SIZE = 500


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation.

    - `loss`: mean cross-entropy, in nats.
    - `confusion`: counts `[classes classes]`, true class by predicted class.
    """

    loss: float
    confusion: Int[np.ndarray, "k k"]

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose label has the highest score, from 0 to 1."""
        return float(np.trace(self.confusion) / self.count)


class Evaluator:
    """Evaluates models in eval mode; models of one structure share a compiled program.

    **Arguments:**

    - `mean`, `std`: normalization per channel.
    - `num_classes`: side of the confusion matrix.
    - `batch_size`: images per call, each view counted as one.
    - `views`: the views of each image that its scores are averaged over; see `eqxcnn.views.view_logits`.
    """

    def __init__(
        self,
        mean: Float[Array, " c"],
        std: Float[Array, " c"],
        num_classes: int,
        batch_size: int = EVAL_BATCH_SIZE,
        views: Views = "one",
    ) -> None:
        self._mean, self._std, self._num_classes = mean, std, num_classes
        self._batch_size, self._views = max(batch_size // NUM_VIEWS[views], 1), views

    @standard_promotion()
    def __call__(
        self,
        model: Classifier,
        state: eqx.nn.State,
        images: Num[np.ndarray, "n h w c"],
        labels: Int[np.ndarray, " n"],
        rows: Int[np.ndarray, " m"] | None = None,
    ) -> Scores:
        """Returns the scores on `uint8` images `[n h w c]`, which may be a memory map, or on `rows` of them."""
        rows = np.arange(len(labels)) if rows is None else rows
        loss, confusion = jnp.zeros(()), jnp.zeros((self._num_classes, self._num_classes), jnp.int32)
        sum_batch = _compile_sums(self._views)
        for batch, mask in zip(*eval_batches(len(rows), min(self._batch_size, len(rows))), strict=True):
            pixels, classes = images[rows[batch]], labels[rows[batch]]
            sums = sum_batch(self._mean, self._std, model, state, pixels, classes, mask)
            loss, confusion = loss + sums[0], confusion + sums[1]
        return Scores(float(loss) / len(rows), np.asarray(confusion))

    @standard_promotion()
    def log_probabilities(
        self, model: Classifier, state: eqx.nn.State, images: Num[np.ndarray, "n h w c"]
    ) -> Float[np.ndarray, "n k"]:
        """Returns the log-softmax `[n classes]` of each image's scores."""
        predict = _compile_log_probabilities(self._views)
        batches, _ = eval_batches(len(images), min(self._batch_size, len(images)))
        found = [np.asarray(predict(self._mean, self._std, model, state, images[batch])) for batch in batches]
        # The last batch is padded at its end.
        return np.concatenate(found)[: len(images)]

    def memory(self, model: Classifier, state: eqx.nn.State, image_shape: tuple[int, int, int], count: int) -> Any:
        """Compiles the evaluation of `count` images and returns the compiler's memory analysis."""
        size = min(self._batch_size, count)
        pixels = np.zeros((size, *image_shape), np.uint8)
        labels, mask = np.zeros(size, np.int32), np.zeros(size, bool)
        lower: Any = _compile_sums(self._views)
        compiled = lower.lower(self._mean, self._std, model, state, pixels, labels, mask).compile()
        return compiled.compiled.memory_analysis()


# Cached per views and not per evaluator, so that all seeds of a sweep share one compiled program.
@cache
def _compile_sums(views: Views) -> Callable[..., tuple[Array, Array]]:
    return async_jit(partial(_sum_batch, views))


@cache
def _compile_log_probabilities(views: Views) -> Callable[..., Array]:
    return async_jit(partial(_log_probabilities, views))


def _sum_batch(
    views: Views,
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    model: Classifier,
    state: eqx.nn.State,
    images: Pixels,
    labels: Labels,
    mask: Bool[Array, " b"],
) -> tuple[Float[Array, ""], Int[Array, "..."]]:
    """Returns a batch's summed loss and confusion counts over the images inside the mask."""
    logits = eval_logits(model, state, images, mean, std, views)
    loss = jnp.where(mask, cross_entropy(logits, labels), 0).sum()
    num_classes = logits.shape[-1]
    confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
    return loss, confusion.at[labels, logits.argmax(-1)].add(mask.astype(jnp.int32))


def _log_probabilities(
    views: Views,
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    model: Classifier,
    state: eqx.nn.State,
    images: Pixels,
) -> BatchLogits:
    return jax.nn.log_softmax(eval_logits(model, state, images, mean, std, views))
