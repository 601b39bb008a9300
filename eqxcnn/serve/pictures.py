"""Small pictures as data URLs, for the page."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

__all__ = ["draw_heat", "draw_pixels"]

#: Red, green, blue and opacity for heat 0, 1/4, 1/2, 3/4 and 1. Low heat is transparent, so the image below shows
#: through.
_COLORS = np.array(
    [[40, 20, 120, 0], [90, 30, 160, 110], [220, 50, 90, 165], [250, 140, 40, 190], [255, 235, 90, 205]], np.float32
)


def draw_pixels(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """Returns pixels with one or three channels as the data URL of a PNG file."""
    return _encode(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def draw_heat(heat: Float[np.ndarray, "h w"]) -> str:
    """Draws heat in [0, 1] as an overlay for an image of the same size; returns the data URL of a PNG file."""
    steps = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(heat, steps, _COLORS[:, channel]) for channel in range(4)]
    return _encode(Image.fromarray(np.stack(channels, -1).round().astype(np.uint8)))


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
