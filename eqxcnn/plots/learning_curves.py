"""The pictures of a run's course, epoch by epoch: numbers in, a matplotlib figure without a title out."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from .style import BLUE, COLUMN, PAGE, SKY, STYLE, VERMILLION

#: A line has so many markers at most.
_MARKERS = 12


@context(STYLE)
def curves(
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float] | None,
    label: str,
    most: float = float("inf"),
) -> Figure:
    """A quantity from 0 to `most`, epoch by epoch, on the training images and those held out, where there are some."""
    figure = _column()
    _draw_curves(figure.subplots(), epochs, train, validation, label, most)
    return figure


@context(STYLE)
def epoch_times(epochs: Sequence[int], seconds: Sequence[float]) -> Figure:
    """How long each epoch took, as bars: in seconds, or in minutes when one took more than ten."""
    figure = _column()
    _draw_times(figure.subplots(), epochs, seconds)
    return figure


@context(STYLE)
def training(epochs: Sequence[int], curves: Sequence[tuple[Any, ...]], seconds: Sequence[float]) -> Figure:
    """Several quantities, each given as to `curves` after its epochs, and the epochs' times, side by side on a page."""
    figure = Figure(figsize=(PAGE, 2.1), layout="constrained")
    *places, last = figure.subplots(1, len(curves) + 1)
    for axes, curve in zip(places, curves, strict=True):
        _draw_curves(axes, epochs, *curve)
    _draw_times(last, epochs, seconds)
    return figure


def _column() -> Figure:
    return Figure(figsize=(COLUMN, 2.4), layout="constrained")


def _draw_curves(
    axes: Axes,
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float] | None,
    label: str,
    most: float,
) -> None:
    _prepare(axes, epochs, label)
    every = ceil(len(epochs) / _MARKERS)
    axes.plot(epochs, train, color=BLUE, marker="o", markevery=every, clip_on=False, label="training")
    if validation is not None:
        # Markers half-way between the others, so that lines that lie on each other are still seen as two.
        marks = {"marker": "s", "markevery": (every // 2, every)}
        axes.plot(epochs, validation, color=VERMILLION, linestyle="--", clip_on=False, label="validation", **marks)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, most))
    axes.legend(loc="best" if train[-1] < train[0] else "lower right")


def _draw_times(axes: Axes, epochs: Sequence[int], seconds: Sequence[float]) -> None:
    unit, size = ("min", 60) if max(seconds) > 600 else ("s", 1)
    _prepare(axes, epochs, f"Time per epoch ({unit})")
    axes.bar(epochs, np.asarray(seconds) / size, color=SKY, width=0.8)


def _prepare(axes: Axes, epochs: Sequence[int], label: str) -> None:
    """Whole epochs on the x axis."""
    # Room for a bar at either end, and none for an epoch 0.
    axes.set(xlabel="Epoch", ylabel=label, xlim=(min(epochs) - 0.6, max(epochs) + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
