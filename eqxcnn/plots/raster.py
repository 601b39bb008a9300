"""Figures and images as pixels, for logs."""

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from jaxtyping import UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

__all__ = ["rasterize", "tile_images"]


def rasterize(figure: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a figure and returns its pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def tile_images(images: UInt8[np.ndarray, "n h w c"], columns: int = 8) -> UInt8[np.ndarray, "H W 3"]:
    """Lays out gray or color images in rows; each image has a white edge of one pixel."""
    count, height, width, _ = images.shape
    columns = min(count, columns)
    tiles = np.full((ceil(count / columns) * columns, height + 2, width + 2, 3), 255, np.uint8)
    tiles[:count, 1:-1, 1:-1] = images
    return rearrange(tiles, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
