"""Turns one encoded image into pixels: opens, decodes, resizes and crops it."""

from .decode import decode_image
from .preprocess import Preprocess

__all__ = ["Preprocess", "decode_image"]
