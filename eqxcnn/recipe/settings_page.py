"""The reference page of every setting: `python -m eqxcnn.recipe.settings_page > docs/settings.md`."""

import ast
import dataclasses
import inspect
from typing import Any, get_type_hints

from ..ranges import declared_bounds, describe_type
from .command_line import RunOptions
from .recipe import GROUPS

__all__ = ["docstrings", "format_page", "format_row"]

_OPENING = """# Settings

<!-- Made by `python -m eqxcnn.recipe.settings_page > docs/settings.md`: edit the files in `eqxcnn/recipe`. -->

Every setting of a recipe. The setting `learning_rate` in YAML and in Python is `--learning-rate` on the command line
of `python -m eqxcnn.train`. The prefix `no` sets a true-or-false setting to false: `--no-shuffle`. The values of
a list follow their flag, separated by spaces; in YAML they are a list.
"""


def format_page() -> str:
    """Returns the page's Markdown: one table per group of settings, and a table of the flags that are not settings."""
    parts = [_OPENING]
    for name, group in GROUPS.items():
        parts.append(_format_table(name.capitalize(), group, "setting"))
    parts.append(_format_table("On the command line only", RunOptions, "flag"))
    return "\n".join(parts)


def _format_table(title: str, group: type, kind: str) -> str:
    opening = f"{inspect.getdoc(group)}\n\n" if kind == "setting" else ""
    rows = [format_row(group, field, is_flag=kind == "flag") for field in dataclasses.fields(group)]
    head = f"| {kind} | values | default | meaning |\n| --- | --- | --- | --- |"
    return f"## {title}\n\n{opening}" + "\n".join([head, *rows]) + "\n"


def format_row(group: type, field: dataclasses.Field[Any], is_flag: bool = False) -> str:
    """Returns the table row of a setting or flag."""
    name = f"--{field.name.replace('_', '-')}" if is_flag else field.name
    default = {(): "none", None: "none", True: "on", False: "off"}.get(field.default, f"`{field.default}`")
    if isinstance(field.default, int | float) and not isinstance(field.default, bool):
        default = f"{field.default:g}"
    hint = get_type_hints(group, include_extras=True)[field.name]
    values = ", ".join([describe_type(hint), *map(str, declared_bounds(hint))])
    cells = (f"`{name}`", values, default, docstrings(group)[field.name])
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def docstrings(group: type) -> dict[str, str]:
    """Returns the string below each field of a dataclass; Python itself does not keep these strings."""
    (found,) = ast.parse(inspect.getsource(group)).body
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for line, below in zip(found.body, found.body[1:], strict=False):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


if __name__ == "__main__":
    print(format_page(), end="")
