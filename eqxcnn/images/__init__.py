"""From one encoded image to pixels: which files are opened, how they are decoded, resized and cropped."""

from .decode import decode_image
from .preprocess import Preprocess

__all__ = ["Preprocess", "decode_image"]
