"""Recipes as YAML: reads recipe files and the recipes shipped with the package, and writes recipes."""

import dataclasses
import os
import re
import warnings
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..errors import InputError, nearest, printable
from ..parsing import parse_yaml, read_text
from ..ranges import coerce, plain_type
from .recipe import Recipe

__all__ = ["RENAMED", "format_recipe_list", "list_recipes", "load_recipe", "recipe_from", "to_yaml"]

#: The folder of the recipes shipped with the package.
_SHIPPED = Path(__file__).parents[1] / "recipes"

#: Settings that had a different name before version 0.1.0: old name to new name.
RENAMED = {
    "warmup_share": "warmup_fraction",
    "first_factor": "initial_lr_factor",
    "last_factor": "final_lr_factor",
    "mix_switch": "mix_switch_probability",
}


def load_recipe(source: str | Path) -> Recipe:
    """Reads a recipe from a YAML file, or a shipped recipe by its name.

    **Raises:** `InputError` for a missing file, an unknown setting, or an invalid value.
    """
    path = Path(source)
    # If the name is too long or the folder is locked, `os.path.exists` returns `False`, but `Path.exists` raises.
    if not path.suffix and not os.path.exists(path):
        if str(source) not in list_recipes():
            raise InputError(f"there is no recipe named `{source}`; {nearest(str(source), list_recipes())}")
        path = _SHIPPED / f"{source}.yaml"
    values = parse_yaml(read_text(path), f"the recipe `{source}`")
    if not isinstance(values, dict):
        raise InputError(f"the recipe `{source}` must hold lines such as `model: lenet`, not {type(values).__name__}")
    return recipe_from(values, origin=str(source))


def list_recipes() -> list[str]:
    """Returns the names of the recipes shipped with the package, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def format_recipe_list() -> str:
    """Returns one line per shipped recipe: its name and the first sentence of its file."""
    names = list_recipes()
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {_first_sentence(name)}." for name in names)


def _first_sentence(name: str) -> str:
    """Returns the first sentence of the comment at the top of a shipped recipe."""
    lines = (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return re.split(r"(?<!et al)\. ", comment)[0].rstrip(".")


def recipe_from(values: dict[str, Any], origin: str) -> Recipe:
    """Makes a recipe from plain values; a setting's old name is accepted with a warning.

    **Arguments:**

    - `values`: settings by name, as read from YAML or JSON.
    - `origin`: where the values come from, for error messages.

    **Raises:** `InputError` for an unknown setting, naming the nearest known one, and for an invalid value.
    """
    known = get_type_hints(Recipe, include_extras=True)
    settings: dict[str, Any] = {}
    for given, value in values.items():
        name = RENAMED.get(given, given)
        if name not in known:
            raise InputError(f"`{given}` in the recipe `{origin}` is not a setting; {nearest(str(given), known)}")
        if name in settings:
            old = next(each for each in values if each != name and RENAMED.get(each) == name)
            raise InputError(f"the recipe `{origin}` sets both `{name}` and its old name `{old}`: keep one")
        if name != given:
            warnings.warn(
                f"`{given}` in the recipe `{printable(origin)}` is now called `{name}`", FutureWarning, stacklevel=2
            )
        settings[name] = coerce(name, _read_numbers(value, plain_type(known[name])), known[name])
    return Recipe(**settings)


def to_yaml(recipe: Recipe) -> str:
    """Returns the recipe as YAML, from which `load_recipe` makes an equal recipe."""
    values = dataclasses.asdict(recipe)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _read_numbers(value: Any, hint: Any) -> Any:
    """Converts strings to numbers where the setting is a number: `1e-3` is a string in YAML."""
    options = get_args(hint) if get_origin(hint) is not tuple else (hint,)
    if isinstance(value, list):
        item = next((get_args(option)[0] for option in options if get_origin(option) is tuple), None)
        return [each if isinstance(each, list) else _read_numbers(each, item) for each in value]
    if isinstance(value, str) and float in (hint, *options):
        try:
            return float(value)
        except ValueError:
            return value
    return value
