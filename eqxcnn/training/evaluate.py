"""A classifier's scores on labeled images: every image counted once, in batches of one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ..data import eval_batches
from ..optim.losses import cross_entropy
from ..runtime.compile import async_jit
from ..types import Classifier, Labels, Pixels
from ..views import NUM_VIEWS, Views, eval_logits


@dataclass(frozen=True)
class Scores:
    """What `evaluate` found.

    - `loss`: mean cross-entropy, in nats.
    - `confusion`: `[classes classes]` counts, true class by predicted class.
    """

    loss: float
    confusion: Int[np.ndarray, "k k"]

    @property
    def count(self) -> int:
        """How many images were looked at."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the images whose highest score is their label's, from 0 to 1."""
        return float(np.trace(self.confusion) / self.count)


class Evaluator:
    """Evaluates models of one structure, compiled once.

    **Arguments:**

    - `mean`, `std`: the normalization, a channel.
    - `num_classes`: the confusion matrix's side.
    - `batch_size`: images a call, each view counted as one.
    - `views`: which views of an image its scores are averaged over; see `eqxcnn.views.view_logits`.
    """

    def __init__(
        self,
        mean: Float[Array, " c"],
        std: Float[Array, " c"],
        num_classes: int,
        batch_size: int = 500,
        views: Views = "one",
    ) -> None:
        self._mean, self._std, self._num_classes = mean, std, num_classes
        self._batch_size = max(batch_size // NUM_VIEWS[views], 1)
        self._step = _compiled_sums(views)

    def __call__(
        self,
        model: Classifier,
        state: eqx.nn.State,
        images: Num[np.ndarray, "n h w c"],
        labels: Int[np.ndarray, " n"],
        rows: Int[np.ndarray, " m"] | None = None,
    ) -> Scores:
        """Scores of `model` in eval mode on `uint8` images `[n h w c]` (a memory map will do), or on `rows` of them."""
        rows = np.arange(len(labels)) if rows is None else rows
        loss, confusion = jnp.zeros(()), jnp.zeros((self._num_classes, self._num_classes), jnp.int32)
        for batch, mask in zip(*eval_batches(len(rows), min(self._batch_size, len(rows))), strict=True):
            pixels, classes = images[rows[batch]], labels[rows[batch]]
            sums = self._step(self._mean, self._std, model, state, pixels, classes, mask)
            loss, confusion = loss + sums[0], confusion + sums[1]
        return Scores(float(loss) / len(rows), np.asarray(confusion))


@cache
def _compiled_sums(views: Views) -> Callable[..., tuple[Array, Array]]:
    """One function for all evaluators: what is of one structure, such as the runs of many seeds, is compiled once."""
    return async_jit(partial(_sums, views))


def _sums(
    views: Views,
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    model: Classifier,
    state: eqx.nn.State,
    images: Pixels,
    labels: Labels,
    mask: Bool[Array, " b"],
) -> tuple[Float[Array, ""], Int[Array, "..."]]:
    """A batch's summed loss and confusion counts, the images outside the mask left out."""
    logits = eval_logits(model, state, images, mean, std, views)
    loss = jnp.where(mask, cross_entropy(logits, labels), 0).sum()
    num_classes = logits.shape[-1]
    confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
    return loss, confusion.at[labels, logits.argmax(-1)].add(mask.astype(jnp.int32))
