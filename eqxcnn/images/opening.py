"""The only module that opens encoded images.

It limits the size of images, and refuses formats whose decoding would start a program.
"""

import io
import os
import struct
import zlib
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    Image = Any

__all__ = ["MAX_PIXELS", "describe_error", "max_pixels", "open_image", "unreadable_errors"]

#: The formats that are opened, recognized by content and not by file name. Pillow can read more formats, but EPS would
#: start Ghostscript, and the rest are not used for photos.
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "TGA")
#: The largest number of pixels of an image if `$EQXCNN_MAX_PIXELS` is not set. Pillow warns about larger images and
#: refuses images of twice the size. As RGB, an image of this size takes 0.4 GB, and several times that in conversion.
MAX_PIXELS = 89_478_485
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def open_image(data: bytes, limit: int | None = None) -> Image:
    """Opens an encoded image; its pixels are not decoded yet.

    **Arguments:**

    - `limit`: the largest number of pixels; by default `max_pixels()`.

    **Raises:** one of `unreadable_errors` if the bytes are not an image in a known format, or if the image has too
    many pixels.
    """
    from PIL import Image

    _check_png(data)
    image = Image.open(io.BytesIO(data), formats=_formats())
    most, pixels = max_pixels() if limit is None else limit, image.width * image.height
    if pixels > most:
        hint = ", or set `EQXCNN_MAX_PIXELS`" if limit is None else ""
        raise ValueError(f"it has {pixels:,} pixels, but the limit is {most:,}: make it smaller{hint}")
    return image


def _check_png(data: bytes) -> None:
    """Verifies the checksums of the pixel data in a PNG file; Pillow does not verify these checksums.

    **Raises:** `ValueError` for a damaged PNG file; files of other formats are not checked.
    """
    start = len(_PNG_SIGNATURE) if data.startswith(_PNG_SIGNATURE) else len(data)
    view = memoryview(data)
    while start + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        end = start + 8 + size
        if name == b"IDAT" and end + 4 > len(data):
            raise ValueError("the file is truncated")
        if name == b"IDAT" and zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("its pixels are damaged (the checksum of a PNG's `IDAT` is wrong)")
        start = end + 4


def max_pixels() -> int:
    """Returns the largest number of pixels that an image may have: `$EQXCNN_MAX_PIXELS`, or 89 million.

    **Raises:** `InputError` if the variable is not a number of at least 1.
    """
    text = os.environ.get("EQXCNN_MAX_PIXELS") or str(MAX_PIXELS)
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 18 and int(text) > 0):
        raise InputError(f"the environment variable `EQXCNN_MAX_PIXELS` (=`{text}`) must be a number of at least 1.")
    return int(text)


@cache
def _formats() -> tuple[str, ...]:
    # Pillow 11.3 and later can read AVIF.
    return (*_FORMATS, "AVIF") if find_spec("PIL.AvifImagePlugin") else _FORMATS


def unreadable_errors() -> tuple[type[Exception], ...]:
    """Returns the types of the exceptions that `open_image` and Pillow's decoders raise for broken files."""
    from PIL.Image import DecompressionBombError

    # Each of these was seen with a damaged file of some format, or is raised explicitly by one of Pillow's readers.
    usual = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, LookupError, TypeError, ArithmeticError)
    return (*usual, struct.error, DecompressionBombError)


def describe_error(error: BaseException) -> str:
    """Returns a description of one of `unreadable_errors`, worded as the end of a sentence, without a period."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"its content is not an image in a known format ({', '.join(_formats())})"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
