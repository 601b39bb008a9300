"""Figures of a run's learning curves and epoch times, without titles."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from .notebook_figure import Figure
from .style import BLUE, COLUMN, PAGE, SKY, STYLE, VERMILLION

__all__ = ["curves", "curves_of_rows", "epoch_times", "loss_by_rate", "training"]

#: Maximum number of markers on a line.
_MAX_MARKERS = 12


@context(STYLE)
def curves(
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float] | None,
    label: str,
    maximum: float = float("inf"),
) -> Figure:
    """Draws a quantity per epoch, for the training images and, if given, for the held-out images.

    The y axis stays within [0, `maximum`].
    """
    figure = _make_column()
    _draw_curves(figure.subplots(), epochs, train, validation, label, maximum)
    return figure


@context(STYLE)
def epoch_times(epochs: Sequence[int], seconds: Sequence[float]) -> Figure:
    """Draws the time of each epoch as bars, in seconds, or in minutes if an epoch took more than ten minutes."""
    figure = _make_column()
    _draw_times(figure.subplots(), epochs, seconds)
    return figure


def curves_of_rows(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws loss, accuracy and epoch times of the rows of `metrics.jsonl` side by side."""
    epochs = [row for row in rows if "epoch" in row]
    curves = []
    for name, label, scale, most in (("loss", "Loss (nats)", 1.0, np.inf), ("accuracy", "Accuracy (%)", 100.0, 100.0)):
        train, validation = (
            [scale * row[f"{part}_{name}"] for row in epochs if f"{part}_{name}" in row]
            for part in ("train", "validation")
        )
        curves.append((train, validation or None, label, most))
    return training([row["epoch"] for row in epochs], curves, [row["seconds"] for row in epochs])


@context(STYLE)
def training(epochs: Sequence[int], curves: Sequence[tuple[Any, ...]], seconds: Sequence[float]) -> Figure:
    """Draws several quantities and the epoch times side by side, as wide as a page.

    Each entry of `curves` holds the arguments for one quantity: `(train, validation, label, maximum)`.
    """
    figure = Figure(figsize=(PAGE, 2.1), layout="constrained")
    *curve_axes, time_axes = figure.subplots(1, len(curves) + 1)
    for axes, curve in zip(curve_axes, curves, strict=True):
        _draw_curves(axes, epochs, *curve)
    _draw_times(time_axes, epochs, seconds)
    return figure


@context(STYLE)
def loss_by_rate(rates: Sequence[float], losses: Sequence[float], marked: float) -> Figure:
    """Draws the loss in nats against the learning rate, on a logarithmic axis, with a vertical line at `marked`."""
    figure = _make_column()
    axes = figure.subplots()
    axes.semilogx(rates, losses, color=BLUE)
    axes.axvline(marked, color=VERMILLION, linestyle="--")
    transform = axes.get_xaxis_transform()
    axes.text(marked, 0.98, f" {marked:.2g}", transform=transform, va="top", color=VERMILLION)
    axes.set(xlabel="Learning rate", ylabel="Loss (nats)")
    return figure


def _make_column() -> Figure:
    """Returns an empty figure as wide as a column."""
    return Figure(figsize=(COLUMN, 2.4), layout="constrained")


def _draw_curves(
    axes: Axes,
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float] | None,
    label: str,
    maximum: float,
) -> None:
    _set_up_axes(axes, epochs, label)
    interval = ceil(len(epochs) / _MAX_MARKERS)
    axes.plot(epochs, train, color=BLUE, marker="o", markevery=interval, clip_on=False, label="training")
    if validation is not None:
        # The markers lie halfway between those of the training line, so that both lines are visible if they coincide.
        marks = {"marker": "s", "markevery": (interval // 2, interval)}
        axes.plot(epochs, validation, color=VERMILLION, linestyle="--", clip_on=False, label="validation", **marks)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, maximum))
    axes.legend(loc="best" if train[-1] < train[0] else "lower right")


def _draw_times(axes: Axes, epochs: Sequence[int], seconds: Sequence[float]) -> None:
    unit, size = ("min", 60) if max(seconds) > 600 else ("s", 1)
    _set_up_axes(axes, epochs, f"Time per epoch ({unit})")
    axes.bar(epochs, np.asarray(seconds) / size, color=SKY, width=0.8)


def _set_up_axes(axes: Axes, epochs: Sequence[int], label: str) -> None:
    """Labels the axes, with whole epochs on the x axis."""
    # The x limits include the first and last bars in full, but are too narrow for a tick at epoch 0.
    axes.set(xlabel="Epoch", ylabel=label, xlim=(min(epochs) - 0.6, max(epochs) + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
