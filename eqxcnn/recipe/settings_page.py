"""The reference page of every switch: `python -m eqxcnn.training.switches > docs/settings.md`."""

import ast
import dataclasses
import inspect
from typing import Any, get_type_hints

from .options import Options
from .recipe import Recipe
from .settings import describe_type

_OPENING = """# Every switch

<!-- Made by `python -m eqxcnn.training.switches > docs/settings.md`: change the words where the settings are. -->

What `python -m eqxcnn.train` takes. A setting is `learning_rate` in a recipe's YAML and in Python, and
`--learning-rate` on the command line, where one that is on or off is turned off by a `no`: `--no-shuffle`. A list's
values follow its flag one after another; in YAML they are a list.
"""


def page() -> str:
    """The page's Markdown: the settings of a recipe, then what only the command line has."""
    own = {field.name for field in dataclasses.fields(Recipe)}
    settings = [row(Recipe, field) for field in dataclasses.fields(Recipe)]
    others = [row(Options, field) for field in dataclasses.fields(Options) if field.name not in own]
    head = "| {} | values | default | what it does |\n| --- | --- | --- | --- |"
    parts = [
        _OPENING,
        "## A recipe's settings\n",
        "\n".join([head.format("setting"), *settings]),
        "\n## On the command line alone\n",
        "\n".join([head.format("flag"), *others]),
    ]
    return "\n".join(parts) + "\n"


def row(owner: type, field: dataclasses.Field[Any]) -> str:
    """A setting's row of the table."""
    name = field.name if owner is Recipe else f"--{field.name.replace('_', '-')}"
    default = {(): "none", None: "none", True: "on", False: "off"}.get(field.default, f"`{field.default}`")
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        default = f"{field.default:g}"
    cells = (f"`{name}`", describe_type(get_type_hints(owner)[field.name]), default, explained(owner)[field.name])
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def explained(owner: type) -> dict[str, str]:
    """What the text below each field of a class says, which Python itself forgets."""
    (found,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for line, below in zip(found.body, found.body[1:], strict=False):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


if __name__ == "__main__":
    print(page(), end="")
