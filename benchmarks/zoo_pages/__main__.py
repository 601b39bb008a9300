"""`python -m benchmarks.zoo_pages`: writes the pages of the zoo, with the speeds from `benchmarks.zoo_speed`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.weights import write_text_atomically

from .page import format_page
from .plot import draw_accuracy, find_points, render_svg
from .rows import make_rows, read_speeds
from .table import format_table_page

ROOT = Path(__file__).resolve().parents[2]
SPEEDS = ROOT / "benchmarks" / "results" / "zoo_speed.json"
PAGE = ROOT / "docs" / "zoo.md"
TABLE = ROOT / "docs" / "assets" / "zoo.html"
PLOT = ROOT / "docs" / "images" / "zoo" / "accuracy.svg"

#: Name, input, parameters and millions of multiply-adds at the start of a row of the page.
_MILLIONS = re.compile(r"^\| `([\w.-]+)` \| \d+x\d+x\d+ \| [\d,]+ \| ([\d,]+\.\d\d) \|", re.MULTILINE)


@dataclass(frozen=True)
class Options:
    """Write docs/zoo.md, docs/assets/zoo.html and docs/images/zoo/accuracy.svg.

    Counting the multiply-adds of all models takes minutes.
    """

    keep_multiply_adds: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the multiply-adds from docs/zoo.md instead of counting them, for example after new speeds."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, writes the files and prints their paths."""
    options = tyro.cli(Options, prog="python -m benchmarks.zoo_pages", args=arguments)
    if options.keep_multiply_adds:
        multiply_adds = read_multiply_adds(PAGE)
    else:
        multiply_adds = {name: zoo.card(name).multiply_adds for name in zoo.list_models()}
    for path, text in render_files(multiply_adds).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, text)
        print(path)


def render_files(multiply_adds: Mapping[str, int]) -> dict[Path, str]:
    """Returns the text of each file, given the multiply-adds of all models."""
    speeds = read_speeds(SPEEDS)
    rows = make_rows(multiply_adds, speeds)
    return {
        PAGE: format_page(rows, speeds),
        TABLE: format_table_page(rows, speeds),
        PLOT: render_svg(draw_accuracy(find_points(rows))),
    }


def read_multiply_adds(page: Path) -> dict[str, int]:
    """Returns the multiply-adds of each model, read from a page, which shows rounded numbers.

    **Raises:** `InputError` if the page and the registry do not have the same models.
    """
    lines = _MILLIONS.findall(page.read_text("utf-8"))
    found = {name: round(float(millions.replace(",", "")) * 1e6) for name, millions in lines}
    if different := set(found) ^ set(zoo.list_models()):
        raise InputError(
            f"`{page}` and the registry do not have the same models ({', '.join(sorted(different))}): omit "
            "`--keep-multiply-adds`"
        )
    return found


if __name__ == "__main__":
    run_command(main)
