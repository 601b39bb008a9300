"""`python -m eqxcnn.data`: shows what a data set contains, before anything is trained on it."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..cli import run_command
from ..errors import InputError, printable
from ..images.preprocess import MAX_SIDE
from ..plugins import IMPORT_HELP, take_imports
from ..ranges import Range, check_settings
from .contact_sheet import MAX_CLASSES, save_contact_sheet
from .dataset import TableDataSet
from .inspect import inspect_data
from .inspect_page import format_report
from .named import open_source

_MAX_PATH = 4096


@dataclass(frozen=True)
class Options:
    """Shows what a data set contains: splits, classes, sizes, unreadable and repeated images, pixel statistics."""

    data: Annotated[str, tyro.conf.Positional]
    """A data set's name, a Hub id or a local folder."""
    image_column: str | None = None
    """Column of the images; by default found by type and name."""
    label_column: str | None = None
    """Column of the labels; by default found by type and name."""
    test_split: str | None = None
    """Name of the test split; by default `test`, else `validation`, else a held-out part of the training split."""
    image_size: tuple[Annotated[int, Range(1, MAX_SIDE)], Annotated[int, Range(1, MAX_SIDE)]] | None = None
    """Height and width at which mean and std are measured; by default the images' common size, or else 64 64."""
    max_rows: Annotated[int, Range(1, 10**12)] | None = None
    """Decode at most this many training rows and this many test rows, spread evenly; by default all."""
    sheet: Path | None = None
    """PNG file to write, with a few training images of each class; by default none is written."""
    per_class: Annotated[int, Range(1, 100)] = 8
    """Number of images of each class on the sheet."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object, and nothing else, to standard output."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, decodes the images once, and prints the report."""
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.data", description=help_, args=arguments)
    check_settings(options)
    # Decoding may take minutes, so a path that cannot be written is refused first.
    if options.sheet is not None and (options.sheet.is_dir() or not options.sheet.parent.is_dir()):
        raise InputError(f"`--sheet` (={options.sheet}) must be the path of a file in a folder that exists")
    opened = open_source(
        options.data,
        image_column=options.image_column,
        label_column=options.label_column,
        test_split=options.test_split,
    )
    assert isinstance(opened, TableDataSet)
    report = inspect_data(opened, image_size=options.image_size, max_rows=options.max_rows)
    if options.sheet is not None:
        save_contact_sheet(opened, options.sheet, options.per_class)
        left_out = max(0, len(report.class_names) - MAX_CLASSES)
        more = f", without the last {left_out:,} classes" if left_out else ""
        print(f"the contact sheet is in {printable(str(options.sheet), _MAX_PATH)}{more}", file=sys.stderr)
    print(json.dumps(dataclasses.asdict(report), indent=2) if options.json else format_report(report))


if __name__ == "__main__":
    run_command(main)
