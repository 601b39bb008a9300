"""Draws the figures of the theory page with values from `eqxcnn.manual`: `python docs/images/theory/make.py`."""

from pathlib import Path

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eqxcnn import manual

HERE = Path(__file__).parent
BLUE, ORANGE, GRAY = "#bcd4f0", "#ffd09b", "#f2f2f2"
SIZE, KERNEL, STRIDE, PADDING = (6, 6), 3, 2, 1


def draw_map(axes: Axes, title: str, texts: np.ndarray, colors: np.ndarray) -> None:
    """Draws a map as squares, each with a text and a color."""
    rows, columns = texts.shape
    for y in range(rows):
        for x in range(columns):
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colors[y, x], edgecolor="black", lw=0.8))
            axes.text(x + 0.5, y + 0.5, texts[y, x], ha="center", va="center", fontsize=9)
    axes.set(xlim=(-0.05, columns + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def find_windows(pixel: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Returns the windows that contain a pixel, each with the offset of the pixel in it."""
    grid = manual.windows(SIZE, KERNEL, STRIDE, PADDING)
    patches = grid.cut(jnp.zeros((1, *SIZE, 1)).at[0, *pixel, 0].set(1))[0]
    return {(int(i), int(j)): divmod(int(k), KERNEL) for i, j, k in np.argwhere(np.asarray(patches))}


def draw_strided() -> Figure:
    """Draws two pixels of a map, and the elements of `dy` that reach each of them."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[8, 4])
    texts, colors = np.full((8, 8), "", object), np.full((8, 8), "white", object)
    colors[[0, -1]] = colors[:, [0, -1]] = GRAY
    dy_texts, dy_colors = np.full((3, 3), "", object), np.full((3, 3), "white", object)
    for pixel, color in (((3, 3), BLUE), ((4, 0), ORANGE)):
        y, x = pixel[0] + PADDING, pixel[1] + PADDING
        texts[y, x], colors[y, x] = f"{pixel[0]},{pixel[1]}", color
        for (i, j), (u, v) in find_windows(pixel).items():
            dy_texts[i, j], dy_colors[i, j] = f"$\\bar y_{{{i}{j}}}$\n$w_{{{u}{v}}}$", color
    draw_map(left, "x, 6 x 6, with one pixel of padding", texts, colors)
    draw_map(right, "gradient of y, 3 x 3", dy_texts, dy_colors)
    return figure


def draw_ties() -> Figure:
    """Draws the input and output of a max pool and the gradients of both; one to four pixels of a window tie."""
    x = jnp.array([[1.0, 7, 4, 4], [3, 2, 0, 1], [5, 5, 0, 0], [5, 2, 0, 0]])
    dy = jnp.array([[6.0, 6], [6, 8]])
    y, cache = manual.max_pool_forward(x[None, ..., None], 2)
    dx = manual.max_pool_backward(cache, dy[None, ..., None])
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    windows = np.array([["white", BLUE], [BLUE, "white"]], object)
    maps = {"x": x, "y": y[0, ..., 0], "gradient of y": dy, "gradient of x": dx[0, ..., 0]}
    panels = figure.subplots(1, 4, width_ratios=[values.shape[1] for values in maps.values()])
    for axes, (title, values) in zip(panels, maps.items(), strict=True):
        texts = np.array([[f"{value:g}" for value in row] for row in values], object)
        draw_map(axes, title, texts, windows.repeat(len(values) // 2, 0).repeat(len(values) // 2, 1))
    return figure


if __name__ == "__main__":
    # Without a date and with a fixed salt for ids, every run writes the same bytes.
    with mpl.rc_context({"svg.hashsalt": "eqxcnn"}):
        draw_strided().savefig(HERE / "strided.svg", metadata={"Date": None})
        draw_ties().savefig(HERE / "ties.svg", metadata={"Date": None})
