"""What a run shows while it trains: the images that it learns from, and at the end what it mistakes for what."""

from collections.abc import Sequence
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int, UInt8

from ..runtime.compile import jit_once
from ..types import Images
from .job import Job
from .step import Batch, Setup, model_input

#: So many images at most, and so many in a row.
_SHOWN, _IN_A_ROW = 64, 8
#: Up to so many classes have their names beside a confusion matrix, cut off at so many letters.
_NAMED, _NAME_LENGTH = 40, 16


def first_images(job: Job) -> UInt8[np.ndarray, "h w 3"]:
    """The first images of the first step as the model sees them, augmented and mixed, side by side."""
    (call,) = job.all_batches(0, slice(1))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), call)
    images = np.asarray(jit_once(_first_images)(job.setup, batch))
    return _grid(np.rint(255 * images.clip(0, 1)).astype(np.uint8))


def _first_images(setup: Setup, batch: Batch) -> Images:
    """What a step before all others gives the model, back on the scale [0, 1]."""
    step = jnp.zeros((), jnp.int32)
    # As `train_step` does it.
    augment_key, _ = jax.random.split(jax.random.fold_in(setup.key, step))
    images, _ = model_input(setup, batch, step, augment_key)
    return images[:_SHOWN] * setup.std + setup.mean


def _grid(images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "H W 3"]:
    """Gray or color images in rows, each with a white edge of a pixel."""
    count, height, width, _ = images.shape
    columns = min(count, _IN_A_ROW)
    tiles = np.full((ceil(count / columns) * columns, height + 2, width + 2, 3), 255, np.uint8)
    tiles[:count, 1:-1, 1:-1] = images
    return rearrange(tiles, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)


def confusion_picture(confusion: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    """True class by predicted class, in per cent of the true class's images; many classes are numbered, not named."""
    # Half a second, for those who look at it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    share: Float[np.ndarray, "k k"] = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    # Whatever the user's own settings are, which stay as they are.
    with context("default"):
        figure = Figure(figsize=(8, 7), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        axes.set(xlabel="Predicted class", ylabel="True class")
        if len(class_names) <= _NAMED:
            names = [name[:_NAME_LENGTH] for name in class_names]
            axes.xaxis.set_ticks(range(len(names)), names, rotation=90, parse_math=False)
            axes.yaxis.set_ticks(range(len(names)), names, parse_math=False)
        figure.colorbar(image, ax=axes, label="Images of the true class (%)")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
