"""A contact sheet: a few training images of each class in one picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from ..errors import InputError, printable
from ..images.opening import unreadable_errors
from ..images.preprocess import Preprocess
from .dataset import TableDataSet
from .decode import fetch, image_source

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont
else:
    Image = FreeTypeFont = Any

__all__ = ["CELL", "MAX_CLASSES", "NAME_WIDTH", "draw_contact_sheet", "save_contact_sheet"]

#: Height and width, in pixels, of an image with its margin (`CELL`) and without (`_IMAGE`).
CELL, _IMAGE = 72, 64
#: Width of the column of class names.
NAME_WIDTH = 200
#: Largest number of classes on the sheet; the other classes are left out.
MAX_CLASSES = 200
_MAX_NAME = 40


def save_contact_sheet(data_set: TableDataSet, path: Path, per_class: int = 8) -> None:
    """Writes the picture of `draw_contact_sheet` as a PNG file.

    **Raises:** `InputError` if the file cannot be written.
    """
    sheet = draw_contact_sheet(data_set, per_class)
    try:
        with path.open("wb") as file:
            sheet.save(file, "PNG")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"the contact sheet `{path}` cannot be written: {reason}") from error


def draw_contact_sheet(data_set: TableDataSet, per_class: int = 8) -> Image:
    """Returns a picture with one row per class: the class name and a few training images, spread evenly over the class.

    Images keep their aspect ratio. A cell stays empty if its image cannot be read.

    **Arguments:**

    - `per_class`: the largest number of images per class.

    **Raises:** `InputError` if the rows of a table cannot be read.
    """
    from PIL import Image, ImageDraw

    names = data_set.info.class_names[:MAX_CLASSES]
    sheet = Image.new("RGB", (NAME_WIDTH + per_class * CELL, len(names) * CELL), "white")
    draw, font, margin = ImageDraw.Draw(sheet), _load_font(), (CELL - _IMAGE) // 2
    for number, name in enumerate(names):
        top = number * CELL
        draw.text((margin, top + CELL // 2), _fit(printable(name, _MAX_NAME), font), "black", font, anchor="lm")
        for column, row in enumerate(_choose(data_set, number, per_class)):
            image = _read(data_set, int(row))
            if image is not None:
                sheet.paste(image, (NAME_WIDTH + column * CELL + margin, top + margin))
    return sheet


def _choose(data_set: TableDataSet, label: int, count: int) -> Int[np.ndarray, " k"]:
    part = data_set.parts["train"]
    rows = part.numbers[part.labels == label]
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def _read(data_set: TableDataSet, row: int) -> Image | None:
    from PIL import Image

    raw = data_set.parts["train"].rows.select_columns(data_set.image_column).with_format("arrow")
    try:
        (value,) = fetch(raw, data_set.image_column, np.array([row]))
        # Tiny images would be blurred by any other interpolation.
        is_tiny = max(data_set.own_size or (_IMAGE,)) < _IMAGE
        interpolation = "nearest" if is_tiny else "bilinear"
        pixels = Preprocess((_IMAGE, _IMAGE), resize="pad", interpolation=interpolation).decode(
            image_source(value, data_set.scale)
        )
    except unreadable_errors():
        return None
    return Image.fromarray(pixels)


def _load_font() -> FreeTypeFont:
    """Returns the font that comes with Matplotlib; Pillow's default font has no Greek or Cyrillic letters."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 14)


def _fit(name: str, font: FreeTypeFont) -> str:
    """Shortens a name until it fits into its column."""
    width, end = NAME_WIDTH - CELL + _IMAGE, ""
    while font.getlength(name + end) > width:
        name, end = name[:-1], " ..."
    return name + end
