"""`python -m eqxcnn.zoo`: lists the models, and shows the facts and the layers of one model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..cli import run_command
from ..errors import InputError
from ..images import Preprocess
from ..plugins import IMPORT_HELP, take_imports
from ..registry import variant
from ..weights.bundled import Bundled
from ..weights.published import PUBLISHED, Published
from . import card, list_models, summary


@dataclass(frozen=True)
class List:
    """List models with their input, parameters and smallest size."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """A name with shell wildcards, in quotes, such as "resnet*"."""
    task: str | None = None
    """Only models published for mnist, cifar, catsdogs or imagenet."""
    pretrained: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only models with trained weights; also shows the weights' source, test data, accuracy, recipe and epoch time."""


@dataclass(frozen=True)
class ShowCard:
    """Show the facts about a model: paper, input, parameters, cost."""

    name: Annotated[str, tyro.conf.Positional]
    """The model's name."""


@dataclass(frozen=True)
class Summary:
    """Show a model's layers in call order, with output shape, parameters and multiply-adds."""

    name: Annotated[str, tyro.conf.Positional]
    """The model's name."""
    image_size: str | None = None
    """A side such as 64, or HEIGHTxWIDTH such as 64x48; the published size by default."""
    num_classes: int | None = None
    """The number of classes; 0 for the network without its head."""
    in_channels: int | None = None
    """The number of image channels."""


_Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[ShowCard, tyro.conf.subcommand("card")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
)


def main(arguments: Sequence[str]) -> None:
    """Parses the arguments and runs the command."""
    description = f"Look up the models of the zoo. {IMPORT_HELP}"
    match tyro.cli(_Command, prog="python -m eqxcnn.zoo", description=description, args=take_imports(arguments)):
        case List(pattern, task, pretrained):
            _print_list(pattern, task, pretrained)
        case ShowCard(name):
            _print_card(name)
        case Summary() as options:
            _print_summary(options)


def _print_list(pattern: str, task: str | None, pretrained: bool) -> None:
    names = list_models(pattern, task=task, pretrained=pretrained)
    if not names:
        raise InputError(
            f"no model {'with trained weights ' if pretrained else ''}matches `{pattern}`"
            f"{f' for {task}' if task else ''}: omit the pattern and `--task` to list all models"
        )
    rows = [(name, variant(name)) for name in names]
    table = [(name, row.task, format_shape(row.input), f"{row.params:,}", f"{row.smallest}") for name, row in rows]
    heads = ("model", "task", "input", ">parameters", ">smallest size")
    if pretrained:
        heads = (*heads[:4], "weights", "test data", ">accuracy", "recipe", ">s/epoch")
        table = [(*row[:2], *_describe_network(*row), *_describe_weights(PUBLISHED[row[0]])) for row in table]
    _print_table(heads, table)


def _describe_network(name: str, _: str, size: str, parameters: str, *__: str) -> tuple[str, str]:
    """Returns the network's input and parameters; weights in this package may be for images of another size."""
    row = PUBLISHED[name]
    if isinstance(row, Published):
        return size, parameters
    return format_shape((*row.preprocess.size, row.preprocess.channels)), f"{row.parameters:,}"


def _describe_weights(row: Bundled | Published) -> tuple[str, str, str, str, str]:
    """Describes trained weights: their source, test data, accuracy, recipe and seconds per epoch."""
    if isinstance(row, Published):
        return row.repository, "-", "-", "-", "-"
    seconds = "-" if row.epoch_seconds is None else f"{row.epoch_seconds:.1f}"
    return "this package", row.data, f"{row.accuracy:.2%}", row.recipe, seconds


def _print_card(name: str) -> None:
    model_card = card(name)
    facts = {
        "model": model_card.name,
        "family": model_card.family if "/" in model_card.family else f"eqxcnn/models/{model_card.family}.py",
        "published for": model_card.task,
        "input": format_shape(model_card.input),
        "classes": f"{model_card.num_classes:,}",
        "parameters": f"{model_card.params:,}",
        "multiply-adds": f"{model_card.multiply_adds:,}",
        "smallest size": format_shape((model_card.smallest, model_card.smallest)),
        "strides of feature maps": ", ".join(map(str, model_card.strides)) or "none",
        "source": model_card.source or "none",
        "recipe": model_card.recipe or "none",
        "torch twin": model_card.torch_twin or "none",
        "trained weights": format_pretrained(model_card.pretrained),
        "time of training": format_training_time(model_card.pretrained),
        "preprocessing": format_preprocess(model_card.preprocess),
    }
    width = max(map(len, facts))
    print("\n".join(f"{fact:<{width}}  {value}" for fact, value in facts.items()))


def _print_summary(options: Summary) -> None:
    rows = summary(
        options.name,
        num_classes=options.num_classes,
        in_channels=options.in_channels,
        image_size=None if options.image_size is None else parse_image_size(options.image_size),
    )
    body = [
        (
            row.path or "(model)",
            row.kind,
            "-" if row.output is None else format_shape(row.output),
            f"{row.calls}",
            f"{row.params:,}",
            f"{row.multiply_adds:,}",
        )
        for row in rows
    ]
    total = [f"{sum(getattr(row, field) for row in rows):,}" for field in ("params", "multiply_adds")]
    heads = ("layer", "class", "output", ">calls", ">parameters", ">multiply-adds")
    _print_table(heads, body, total=("total", "", "", "", *total))


def parse_image_size(text: str) -> int | tuple[int, int]:
    """Parses `"64"` to 64 and `"64x48"` to `(64, 48)`, height first.

    **Raises:** `InputError` for any other text.
    """
    match text.split("x"):
        case [str(side)] if side.isdecimal():
            return int(side)
        case [str(height), str(width)] if height.isdecimal() and width.isdecimal():
            return int(height), int(width)
    raise InputError(f"`--image-size` (={text!r}) must be a side such as 64, or HEIGHTxWIDTH such as 64x48")


def format_shape(shape: Iterable[int]) -> str:
    """Formats a shape as in `28x28x6`."""
    return "x".join(map(str, shape))


def format_pretrained(row: Bundled | Published | None) -> str:
    """Formats trained weights on one line: their source and, for weights in this package, their scores and run."""
    if not isinstance(row, Bundled):
        return "none" if row is None else f"on the Hub, {row.repository}"
    views = "" if row.test_views == "one" else f" with test views {row.test_views}, {row.one_view_accuracy:.2%} without"
    return (
        f"in this package, {row.parameters:,} parameters, {row.accuracy:.2%} of {row.test_images:,} test images of "
        f"{row.data}{views}; recipe {row.recipe}, seed {row.seed}"
    )


def format_training_time(row: Bundled | Published | None) -> str:
    """Formats the recorded time of an epoch: `10.7 s per epoch of 58,752 images, 30 epochs, on AMD EPYC, cores: 2`."""
    if not isinstance(row, Bundled) or row.epoch_seconds is None:
        return "not recorded"
    run, machine = row.training, row.training["environment"]
    return (
        f"{row.epoch_seconds:.1f} s per epoch of {run['train_images_per_epoch']:,} images, {run['epochs']} epochs, on "
        f"{machine['processor']}, cores: {machine['cores']}"
    )


def format_preprocess(preprocess: Preprocess | None) -> str:
    """Formats a preprocessing on one line, as in `224x224x3, crop of 0.875, bilinear, mean 0.5 0.5 0.5, std 1 1 1`."""
    if preprocess is None:
        return "none"
    words = [
        format_shape((*preprocess.size, preprocess.channels)),
        f"{preprocess.resize} of {preprocess.crop_fraction:.3g}",
        preprocess.interpolation,
    ]
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        words += [f"{name} {' '.join(f'{value:g}' for value in values)}"] if values else []
    return ", ".join(words)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Prints a table; columns whose head starts with `>` are right-aligned."""
    table = Table(box=SIMPLE_HEAD, show_footer=total is not None, pad_edge=False)
    for head, footer in zip(heads, total or heads, strict=True):
        justify: Any = "right" if head.startswith(">") else "left"
        table.add_column(head.removeprefix(">"), footer, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    # Rows are never wrapped or cut, so that paths stay whole and the output can be piped.
    wide = console.options.update(width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


if __name__ == "__main__":
    run_command(main)
