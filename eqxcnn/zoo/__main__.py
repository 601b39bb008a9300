"""`python -m eqxcnn.zoo`: what models there are, what is known of one, what its layers cost."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..cli import run_command
from ..errors import InputError
from ..registry import families, variant
from . import card, list_models, summary
from .page import page


@dataclass(frozen=True)
class List:
    """List models with their input, parameters and smallest side."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """Shell wildcards in quotes, such as "resnet*"."""
    task: str | None = None
    """Only models published on mnist, cifar, catsdogs or imagenet."""


@dataclass(frozen=True)
class ShowCard:
    """Tell all that is known of a model: paper, input, parameters, cost."""

    name: Annotated[str, tyro.conf.Positional]
    """The model's name."""


@dataclass(frozen=True)
class Summary:
    """Show a model's layers in the order of their calls: output shape, parameters and multiply-adds of each."""

    name: Annotated[str, tyro.conf.Positional]
    """The model's name."""
    image_size: str | None = None
    """A side, such as 64, or HEIGHTxWIDTH, such as 64x48; by default the published one."""
    num_classes: int | None = None
    """How many classes; 0 for the network without its head."""
    in_channels: int | None = None
    """How many channels the images have."""


@dataclass(frozen=True)
class Page:
    """Print docs/zoo.md, the table of all models; it counts multiply-adds of each, which takes minutes."""


_Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[ShowCard, tyro.conf.subcommand("card")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Page, tyro.conf.subcommand("page")]
)


def main(arguments: Sequence[str]) -> None:
    """Parses, looks up, prints."""
    description = "Look up the models that there are."
    match tyro.cli(_Command, prog="python -m eqxcnn.zoo", description=description, args=arguments):
        case List(pattern, task):
            _print_list(pattern, task)
        case ShowCard(name):
            _print_card(name)
        case Summary() as options:
            _print_summary(options)
        case Page():
            sys.stdout.write(page({name: card(name).multiply_adds for name in families()}))


def _print_list(pattern: str, task: str | None) -> None:
    names = list_models(pattern, task=task)
    if not names:
        raise InputError(f"no model's name fits `{pattern}`{f' on {task}' if task else ''}: see all by leaving it out")
    rows = [(name, variant(name)) for name in names]
    table = [(name, row.task, by(row.input), f"{row.params:,}", f"{row.smallest}") for name, row in rows]
    _print_table(("model", "task", "input", ">parameters", ">smallest side"), table)


def _print_card(name: str) -> None:
    told = card(name)
    facts = {
        "model": told.name,
        "family": f"eqxcnn/models/{told.family}.py",
        "published on": told.task,
        "input": by(told.input),
        "classes": f"{told.num_classes:,}",
        "parameters": f"{told.params:,}",
        "multiply-adds": f"{told.multiply_adds:,}",
        "smallest input": by((told.smallest, told.smallest)),
        "strides of its maps": ", ".join(map(str, told.strides)) or "it has no maps",
        "source": told.source,
        "recipe": told.recipe or "none",
        "torch twin": told.torch_twin or "none",
    }
    width = max(map(len, facts))
    print("\n".join(f"{fact:<{width}}  {value}" for fact, value in facts.items()))


def _print_summary(options: Summary) -> None:
    rows = summary(
        options.name,
        num_classes=options.num_classes,
        in_channels=options.in_channels,
        image_size=None if options.image_size is None else sides(options.image_size),
    )
    body = [
        (
            row.path or "(model)",
            row.kind,
            "-" if row.output is None else by(row.output),
            f"{row.calls}",
            f"{row.params:,}",
            f"{row.multiply_adds:,}",
        )
        for row in rows
    ]
    total = [f"{sum(getattr(row, of) for row in rows):,}" for of in ("params", "multiply_adds")]
    heads = ("layer", "class", "output", ">calls", ">parameters", ">multiply-adds")
    _print_table(heads, body, total=("total", "", "", "", *total))


def sides(text: str) -> int | tuple[int, int]:
    """`"64"` as 64 and `"64x48"` as `(64, 48)`, height first.

    **Raises:** `InputError` for anything else.
    """
    match text.split("x"):
        case [str(side)] if side.isdecimal():
            return int(side)
        case [str(height), str(width)] if height.isdecimal() and width.isdecimal():
            return int(height), int(width)
    raise InputError(f"`--image-size` (={text!r}) must be a side, such as 64, or HEIGHTxWIDTH, such as 64x48")


def by(shape: Iterable[int]) -> str:
    """A shape as it is spoken: `28x28x6`."""
    return "x".join(map(str, shape))


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Prints columns; those whose head starts with `>` hold numbers."""
    table = Table(box=SIMPLE_HEAD, show_footer=total is not None, pad_edge=False)
    for head, footer in zip(heads, total or heads, strict=True):
        justify: Any = "right" if head.startswith(">") else "left"
        table.add_column(head.removeprefix(">"), footer, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    # A line stays a line: cut paths are of no use, and what wraps in a narrow terminal can be piped.
    wide = console.options.update(width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


if __name__ == "__main__":
    run_command(main)
