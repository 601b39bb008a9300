"""Figures of a classifier's kernels and predictions, and of augmentation.

The figures have no titles: a title belongs in the caption.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.style import context

from ..errors import printable
from .notebook_figure import Figure
from .style import COLUMN, PAGE, STYLE

__all__ = ["MAX_KERNELS", "MAX_NAMED_CLASSES", "augmentation", "confusion_matrix", "heat_maps", "kernels", "mistakes"]

#: Maximum number of classes with numbers in the cells of a confusion matrix, and maximum number with class names.
_MAX_NUMBERED, MAX_NAMED_CLASSES = 20, 40
_MAX_NAME_LENGTH = 16
#: Maximum number of kernels, in total and per row.
MAX_KERNELS, _KERNELS_PER_ROW = 64, 8
_IMAGES_PER_ROW = 4
#: Opacity of a heat map over its image.
_HEAT_OPACITY = 0.6


@context(STYLE)
def confusion_matrix(confusion: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> Figure:
    """Draws a confusion matrix, with true classes as rows, predicted classes as columns, and percentages per row.

    With at most 20 classes, cells contain percentages, and an empty cell means no image; with at most three classes,
    cells also contain counts. With more than 40 classes, classes are numbered from 0 instead of named. The color scale
    magnifies small fractions, since the mistakes are of interest.
    """
    count = len(class_names)
    width = COLUMN if count <= 3 else 5.0 if count <= 10 else PAGE
    figure = Figure(figsize=(width, 0.86 * width), layout="compressed")
    axes = figure.subplots()
    share = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.spines[:].set_visible(True)
    if count <= MAX_NAMED_CLASSES:
        _label_classes(axes, class_names)
    if count <= _MAX_NUMBERED:
        _write_cells(axes, share, confusion)
    bar = figure.colorbar(image, ax=axes, label="Images of the true class (%)", ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _label_classes(axes: Axes, class_names: Sequence[str]) -> None:
    """Writes class names along both axes, rotated below the x axis unless they are all very short."""
    names = [_shorten(name) for name in class_names]
    rotation = 0 if max(map(len, names)) * len(names) <= 30 else 45 if len(names) <= _MAX_NUMBERED else 90
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), names, parse_math=False)
    for label in axes.get_xticklabels() if rotation else []:
        # The end of each rotated name is placed below the middle of its column.
        label.set(rotation=rotation, ha="right", va="center" if rotation == 90 else "top", rotation_mode="anchor")


def _write_cells(axes: Axes, share: Float[np.ndarray, "k k"], confusion: Int[np.ndarray, "k k"]) -> None:
    for row, column in np.argwhere(confusion):
        percent, count = share[row, column], confusion[row, column]
        text = f"{percent:.0f}" if len(share) > 10 or percent == 100 else f"{percent:.1f}"
        text = f"{percent:.1f}%\n{count:,}" if len(share) <= 3 else text
        axes.text(column, row, text, ha="center", va="center", color="white" if percent > 45 else "black")


@context(STYLE)
def kernels(weights: Float[np.ndarray, "kh kw i o"]) -> Figure:
    """Draws a layer's first kernels as small images, all on one scale that is symmetric about zero.

    Kernels with three channels are shown in color: zero is mid-gray, positive weights brighten their channel, and
    negative weights darken it. Kernels with one channel are blue where negative and red where positive; for any other
    number of channels, the mean over the channels is drawn in these colors.
    """
    panels = np.moveaxis(weights, -1, 0)[:MAX_KERNELS]
    is_color = panels.shape[-1] == 3
    panels = panels if is_color else panels.mean(-1, keepdims=True)
    limit = float(np.abs(panels).max()) or 1.0
    columns = min(len(panels), _KERNELS_PER_ROW)
    rows = ceil(len(panels) / columns)
    side = COLUMN / _KERNELS_PER_ROW
    height = side * panels.shape[1] / panels.shape[2]
    colorbar_height = 0 if is_color else 0.5
    figure = Figure(figsize=(max(columns * side, 2.0), rows * height + colorbar_height), layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False)
    scale = Normalize(-limit, limit)
    for axes, panel in _fill(grid, panels):
        if is_color:
            axes.imshow(0.5 + panel / (2 * limit), interpolation="nearest")
        else:
            axes.imshow(panel[..., 0], cmap="RdBu_r", norm=scale, interpolation="nearest")
    if not is_color:
        mappable = ScalarMappable(scale, "RdBu_r")
        figure.colorbar(mappable, ax=grid, location="bottom", label="Weight", aspect=30, shrink=0.8)
    return figure


@context(STYLE)
def augmentation(originals: Num[np.ndarray, "n h w c"], augmented: Num[np.ndarray, "n m h2 w2 c"]) -> Figure:
    """Draws one row per image: the original, then its augmented versions. Pixels are `uint8`, or in [0, 1]."""
    rows, draws, height, width, _ = augmented.shape
    side = COLUMN / (draws + 1.2)
    figure = Figure(figsize=(COLUMN, rows * side * height / width + 0.25), layout="compressed")
    # An empty column separates the originals from the augmented images.
    grid = figure.subplots(rows, draws + 2, squeeze=False, width_ratios=[1, 0.05, *[1] * draws])
    for axes in grid[:, 1]:
        axes.remove()
    panels = augmented.reshape(-1, *augmented.shape[2:])
    for axes, panel in _fill(grid[:, :1], originals) + _fill(grid[:, 2:], panels):
        _draw_image(axes, panel)
    grid[0, 0].set_title("original")
    grid[0, 2 + draws // 2].set_title("augmented")
    return figure


@context(STYLE)
def mistakes(
    images: Num[np.ndarray, "n h w c"],
    actual: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
) -> Figure:
    """Draws misclassified images, each with its true class, its predicted class and the predicted probability."""
    columns = min(len(images), _IMAGES_PER_ROW)
    rows = ceil(len(images) / columns)
    side = PAGE / _IMAGES_PER_ROW
    height = (side - 0.35) * images.shape[1] / images.shape[2] + 0.4
    figure = Figure(figsize=(columns * side, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    _draw_predictions(grid, images, actual, predicted, probabilities)
    return figure


@context(STYLE)
def heat_maps(
    images: Num[np.ndarray, "n h w c"],
    heat: Float[np.ndarray, "n h w"],
    actual: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
) -> Figure:
    """Draws each image above its heat map, with the true class, the predicted class and the predicted probability.

    The heat, in [0, 1], is drawn over a gray copy of the image, from black (0) through purple and orange to yellow (1).
    """
    columns = min(len(images), _IMAGES_PER_ROW)
    rows = ceil(len(images) / columns)
    side = PAGE / _IMAGES_PER_ROW
    height = 2 * (side - 0.25) * images.shape[1] / images.shape[2] + 0.45
    figure = Figure(figsize=(columns * side, rows * height), layout="compressed")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    _draw_predictions(grid[::2], images, actual, predicted, probabilities)
    for index, (axes, panel) in enumerate(_fill(grid[1::2], images)):
        _draw_image(axes, panel.mean(-1, keepdims=True).astype(panel.dtype))
        axes.imshow(heat[index], cmap="inferno", vmin=0, vmax=1, alpha=_HEAT_OPACITY, interpolation="nearest")
    return figure


def _draw_predictions(
    grid: np.ndarray,
    images: Num[np.ndarray, "n h w c"],
    actual: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
) -> None:
    """Draws images in row order; a caption gives the true class, the predicted class and the predicted probability."""
    captions = zip(actual, predicted, probabilities, strict=True)
    for (axes, panel), (true_name, predicted_name, probability) in zip(_fill(grid, images), captions, strict=True):
        _draw_image(axes, panel)
        caption = f"{_shorten(true_name)}, predicted as\n{_shorten(predicted_name)} ({probability:.1%})"
        axes.set_title(caption, parse_math=False)


def _fill(grid: np.ndarray, panels: Num[np.ndarray, "n ..."]) -> list[tuple[Axes, np.ndarray]]:
    """Returns pairs `(axes, panel)`, with the axes in row order; hides the remaining axes."""
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    return list(zip(grid.flat, panels, strict=False))


def _draw_image(axes: Axes, image: Num[np.ndarray, "h w c"]) -> None:
    """Draws a gray or color image without interpolation."""
    pixels = image / 255 if image.dtype == np.uint8 else np.clip(image, 0, 1)
    axes.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), interpolation="nearest")


def _shorten(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"
