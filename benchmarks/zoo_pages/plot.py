"""Plots the accuracy of the networks with trained weights against their parameters and their prediction speed."""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import NullLocator

from eqxcnn.plots.style import BLUE, PAGE, SKY, STYLE, VERMILLION

from ..zoo_speed import PREDICTION
from .rows import KINDS, Row

__all__ = ["Point", "draw_accuracy", "find_points", "render_svg"]

#: Color and marker of each data set.
_LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (SKY, "^"))
#: Accuracies in percent at which the vertical axis may have ticks.
_TICKS = (50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
#: Spare room around the points, as a fraction of the range.
_MARGIN = 0.12


class Point(NamedTuple):
    """A network in the plot: name, data set, accuracy from 0 to 1, parameters, and images per second if measured."""

    name: str
    data: str
    accuracy: float
    params: int
    speed: float | None


def find_points(rows: Sequence[Row]) -> list[Point]:
    """Returns the networks with trained weights in the package, each with its single-view accuracy."""
    column = KINDS.index(PREDICTION)
    return [
        Point(row.name, row.bundled.data, row.bundled.one_view_accuracy, row.bundled.parameters, row.speeds[column])
        for row in rows
        if row.bundled
    ]


@context(STYLE)
def draw_accuracy(points: Sequence[Point]) -> Figure:
    """Plots accuracy against parameters and against images per second of prediction, with a color for each data set."""
    figure = Figure(figsize=(PAGE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    looks = dict(zip(sorted({point.data for point in points}), cycle(_LOOKS), strict=False))
    _draw_panel(left, [(point, point.params) for point in points], looks)
    left.set(xlabel="Parameters", ylabel="Test accuracy (%)")
    _draw_panel(right, [(point, point.speed) for point in points if point.speed is not None], looks)
    right.set(xlabel="Images per second of prediction")
    _set_up_accuracies(left, [point.accuracy for point in points])
    left.legend(loc="lower left", handlelength=1)
    if not any(point.speed for point in points):
        right.xaxis.set(major_locator=NullLocator(), minor_locator=NullLocator())
        right.text(0.5, 0.5, "not measured yet", transform=right.transAxes, ha="center")
    return figure


def _draw_panel(axes: Axes, points: Sequence[tuple[Point, float]], looks: Mapping[str, tuple[str, str]]) -> None:
    """Draws named points over a logarithmic horizontal axis."""
    axes.set_xscale("log")
    axes.grid()
    for data, (color, marker) in looks.items():
        of_data = [(x, 100 * point.accuracy) for point, x in points if point.data == data]
        if of_data:
            axes.plot(*zip(*of_data, strict=True), linestyle="", marker=marker, markersize=5, color=color, label=data)
    if not points:
        return
    middle = np.sqrt(min(x for _, x in points) * max(x for _, x in points))
    for point, x in points:
        # Names are written on the side towards the middle, so that they stay inside the panel.
        side, align = (1, "left") if x <= middle else (-1, "right")
        axes.annotate(
            point.name, (x, 100 * point.accuracy), (6 * side, 0), textcoords="offset points", ha=align, va="center",
            parse_math=False,
        )  # fmt: skip
    axes.margins(x=_MARGIN)


def _set_up_accuracies(axes: Axes, accuracies: Sequence[float]) -> None:
    """Scales the vertical axis logarithmically in the error, so that accuracies near 100 % do not coincide."""

    def to_axis(percent: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(100 - np.asarray(percent, float), 1e-3))

    def from_axis(value: np.ndarray) -> np.ndarray:
        return 100 - 10.0 ** -np.asarray(value, float)

    axes.set_yscale("function", functions=(to_axis, from_axis))
    ends = to_axis(100 * np.array([min(accuracies), max(accuracies)]))
    spare = max(_MARGIN * (ends[1] - ends[0]), 0.1)
    low, high = from_axis(np.array([ends[0] - spare, ends[1] + spare]))
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in _TICKS if low <= tick <= high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


@context(STYLE)
def render_svg(figure: Figure) -> str:
    """Returns the figure as the text of an SVG file, which depends only on the figure and the version of Matplotlib."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    # The hooks of the repository remove spaces at the ends of lines.
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())
