"""Evaluation of a classifier on labeled images, in batches of a fixed shape; each image counts once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from ..data import DecodeAhead, EncodedImages, eval_batches
from ..data.columns import MISSING
from ..errors import InputError
from ..metrics import Metric
from ..optim.losses import cross_entropy
from ..runtime.compile import async_jit
from ..runtime.devices import Devices
from ..runtime.promotion import standard_promotion
from ..types import BatchLogits, Images, Labels, ModelState, Network, Pixels
from ..views import NUM_VIEWS, Views, eval_logits

__all__ = ["EVAL_BATCH_SIZE", "Evaluator", "Scores", "choose_batch_size"]

#: Maximum number of images per batch, unless a recipe sets the batch size.
EVAL_BATCH_SIZE = 500
#: Maximum number of pixels per batch, unless a recipe sets the batch size. ResNet-18 then needs 1 GB for its maps.
_MAX_PIXELS = 1 << 22
_ONE_DEVICE = Devices()


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation.

    - `loss`: mean cross-entropy, in nats.
    - `confusion`: counts `[classes classes]`, true class by predicted class.
    - `metrics`: other metrics, by name; each value is a number, or a list of numbers such as one per class.
    """

    loss: float
    confusion: Int[np.ndarray, "k k"]
    metrics: Mapping[str, float | int | list[float | None]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction, from 0 to 1, of the images whose label has the highest score."""
        return float(np.trace(self.confusion) / self.count)


def choose_batch_size(wanted: int | None, image_size: tuple[int, int]) -> int:
    """Returns the number of images per evaluation batch.

    **Arguments:**

    - `wanted`: the recipe's `eval_batch_size`.
    - `image_size`: height and width of the images.
    """
    return wanted or min(EVAL_BATCH_SIZE, max(_MAX_PIXELS // prod(image_size), 1))


class Evaluator:
    """Evaluates models in eval mode; models with the same structure share a compiled program.

    **Arguments:**

    - `mean`, `std`: normalization per channel.
    - `num_classes`: number of classes, the side of the confusion matrix.
    - `batch_size`: images per call; each view counts as an image.
    - `views`: the views of each image over which the scores are averaged; see `eqxcnn.views.view_logits`.
    - `metrics`: metrics to compute besides loss and accuracy, by name.
    - `devices`: the devices that share each batch, which is padded to a multiple of their number.
    """

    def __init__(
        self,
        mean: Float[Array, " c"],
        std: Float[Array, " c"],
        num_classes: int,
        batch_size: int = EVAL_BATCH_SIZE,
        views: Views = "one",
        metrics: Mapping[str, Metric] | None = None,
        devices: Devices = _ONE_DEVICE,
    ) -> None:
        self._metrics = metrics or {}
        self._mean, self._std, self._num_classes = mean, std, num_classes
        self._batch_size, self._views = max(batch_size // NUM_VIEWS[views], 1), views
        self._devices = devices

    @standard_promotion()
    def __call__(
        self,
        model: Network,
        state: ModelState,
        images: Num[np.ndarray, "n h w c"] | EncodedImages,
        labels: Int[np.ndarray, " n"],
        rows: Int[np.ndarray, " m"] | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Scores:
        """Returns the scores on images `[n h w c]`, which are `uint8` or in [0, 1].

        At most two batches are on the device at once.

        **Arguments:**

        - `images`: an array, a memory map, or encoded images; unreadable images that are skipped do not count.
        - `rows`: selects some of the images. If several processes evaluate, each reads its own part of every batch.
        - `advance`: called after each batch with its number of images, for a progress bar.

        **Raises:** `InputError` for an unreadable image; if unreadable images are skipped, only if all are unreadable.
        """
        rows = np.arange(len(labels)) if rows is None else rows
        zeros = jnp.zeros(()), jnp.zeros((self._num_classes, self._num_classes), jnp.int32)
        total: Any = (*self._devices.replicate(zeros), None)
        sum_batch, earlier = self._compile_sums(), total
        size = self._devices.round_up(max(min(self._batch_size, len(rows)), 1))
        batches = _read_batches(images, labels, rows, size, self._devices.own_part(size))
        for number, (pixels, classes, mask) in enumerate(batches):
            # Without this wait, images that are read faster than they are evaluated would fill the device's memory.
            jax.block_until_ready(earlier)
            earlier = total
            batch = self._devices.split((pixels, classes, mask), axis=0)
            loss, confusion, further = sum_batch(self._mean, self._std, model, state, *batch)
            further = further if total[2] is None else jax.tree.map(jnp.add, total[2], further)
            total = total[0] + loss, total[1] + confusion, further
            advance(min(size, len(rows) - number * size))
        loss, confusion, further = jax.device_get(total)
        count = int(confusion.sum())
        if count == 0:
            raise InputError(f"none of the {len(rows):,} images to evaluate on can be decoded: repair them")
        pairs = zip(self._metrics.items(), further, strict=True)
        found = {name: _as_number(name, metric.result(sums)) for (name, metric), sums in pairs}
        return Scores(float(loss) / count, np.asarray(confusion), found)

    def _compile_sums(self) -> Callable[..., tuple[Array, Array, tuple[PyTree, ...]]]:
        return _compile_sums(self._views, tuple(metric.sums for metric in self._metrics.values()))

    @standard_promotion()
    def log_probabilities(
        self, model: Network, state: ModelState, images: Num[np.ndarray, "n h w c"] | EncodedImages
    ) -> Float[np.ndarray, "n k"]:
        """Returns the log-softmax `[n classes]` of each image's scores."""
        predict = _compile_log_probabilities(self._views)
        batches, _ = eval_batches(len(images), min(self._batch_size, len(images)))
        found = [np.asarray(predict(self._mean, self._std, model, state, images[batch])) for batch in batches]
        # The last batch is padded at its end.
        return np.concatenate(found)[: len(images)]

    def memory(self, model: Network, state: ModelState, image_shape: tuple[int, int, int], count: int) -> Any:
        """Compiles the evaluation of `count` images and returns the compiler's memory analysis."""
        size = self._devices.round_up(min(self._batch_size, count)) // self._devices.processes
        empty = np.zeros((size, *image_shape), np.uint8), np.zeros(size, np.int32), np.zeros(size, bool)
        batch = self._devices.split(empty, axis=0)
        lower: Any = self._compile_sums()
        compiled = lower.lower(self._mean, self._std, model, state, *batch).compile()
        return compiled.compiled.memory_analysis()


def _read_batches(
    images: Num[np.ndarray, "n h w c"] | EncodedImages,
    labels: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " m"],
    size: int,
    part: slice,
) -> Iterator[tuple[Num[np.ndarray, "b h w c"], Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]]:
    """Yields images, labels and mask of this process's part of each batch; the mask is false for images to ignore."""
    if not isinstance(images, EncodedImages):
        for batch, mask in zip(*eval_batches(len(rows), size), strict=True):
            yield images[rows[batch[part]]], labels[rows[batch[part]]], mask[part]
        return
    parts = [rows[start : start + size][part] for start in range(0, len(rows), size)]
    # `DecodeAhead` needs at least one row, but this process may have none. The appended row is never read.
    own, width = np.concatenate([*parts, rows[:1]]), part.stop - part.start
    with closing(DecodeAhead(images, labels, lambda _: own, len(own), replaces=False)) as reader:
        for pixels, classes, _ in reader.batches(0, 0, [(len(each),) for each in parts]):
            if missing := width - len(classes):
                pixels = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
                classes = np.pad(classes, (0, missing), constant_values=MISSING)
            yield pixels, np.maximum(classes, 0), classes != MISSING


def _as_number(name: str, result: Any) -> float | int | list[float | None]:
    """Converts a metric's result to Python numbers, so that it can be logged.

    **Raises:** `InputError` if the result is neither a number nor a list of numbers.
    """
    value = np.asarray(result).tolist() if eqx.is_array_like(result) else result
    if isinstance(value, bool | int | float):
        return +value
    if isinstance(value, list | tuple):
        items = [np.asarray(each).tolist() if eqx.is_array_like(each) else each for each in value]
        if all(each is None or isinstance(each, bool | int | float) for each in items):
            return [None if each is None else float(each) for each in items]
    raise InputError(
        f"`result` of the metric `{name}` returned a {type(result).__name__}: return a number, or a list of numbers"
    )


# Cached per views and metrics, not per evaluator, so that all seeds of a sweep share one compiled program.
@cache
def _compile_sums(
    views: Views, metrics: tuple[Callable[..., PyTree], ...]
) -> Callable[..., tuple[Array, Array, tuple[PyTree, ...]]]:
    return async_jit(partial(_sum_batch, views, metrics))


@cache
def _compile_log_probabilities(views: Views) -> Callable[..., Array]:
    return async_jit(partial(_log_probabilities, views))


def _sum_batch(
    views: Views,
    metrics: tuple[Callable[..., PyTree], ...],
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    model: Network,
    state: ModelState,
    images: Pixels | Images,
    labels: Labels,
    mask: Bool[Array, " b"],
) -> tuple[Float[Array, ""], Int[Array, "..."], tuple[PyTree, ...]]:
    """Returns a batch's loss, confusion counts and metrics, each summed over the images inside the mask."""
    logits = eval_logits(model, state, images, mean, std, views)
    loss = jnp.where(mask, cross_entropy(logits, labels), 0).sum()
    num_classes = logits.shape[-1]
    confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
    confusion = confusion.at[labels, logits.argmax(-1)].add(mask.astype(jnp.int32))
    floats = logits.astype(jnp.float32)
    return loss, confusion, tuple(metric(floats, labels, mask) for metric in metrics)


def _log_probabilities(
    views: Views,
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    model: Network,
    state: ModelState,
    images: Pixels | Images,
) -> BatchLogits:
    return jax.nn.log_softmax(eval_logits(model, state, images, mean, std, views))
