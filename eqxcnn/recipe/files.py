"""Recipes as YAML: read from files or from those that come with the package, and written."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..errors import InputError, nearest
from .recipe import Recipe
from .settings import coerce

#: Where the recipes that come with the package lie.
_SHIPPED = Path(__file__).parents[1] / "recipes"


def load_recipe(source: str | Path) -> Recipe:
    """Reads a recipe from a YAML file, or one shipped with the package by its name.

    **Raises:** `InputError` for a missing file, a key that no recipe has, or a value that cannot be.
    """
    path = Path(source)
    if not path.suffix and not path.exists():
        path = _SHIPPED / f"{source}.yaml"
        if not path.exists():
            raise InputError(f"there is no recipe named `{source}`; {nearest(str(source), list_recipes())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the recipe `{source}` cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe `{source}` is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"the recipe `{source}` must hold lines such as `model: lenet`, not {type(values).__name__}")
    return recipe_from(values, origin=str(source))


def list_recipes() -> list[str]:
    """Names of the recipes shipped with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def format_recipe_list() -> str:
    """A line for each recipe that comes with the package: its name, and how its file opens."""
    names = list_recipes()
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {_first_sentence(name)}." for name in names)


def _first_sentence(name: str) -> str:
    """Of the comment that opens a shipped recipe."""
    lines = (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return re.split(r"(?<!et al)\. ", comment)[0].rstrip(".")


def recipe_from(values: dict[str, Any], origin: str) -> Recipe:
    """A recipe from plain values, refusing unknown keys with the nearest known one; `origin` names them in errors."""
    known = get_type_hints(Recipe)
    for name in values:
        if name not in known:
            raise InputError(f"`{name}` in the recipe `{origin}` is no setting; {nearest(str(name), known)}")
    return Recipe(**{name: coerce(name, _from_yaml(value, known[name]), known[name]) for name, value in values.items()})


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to an equal one."""
    values = dataclasses.asdict(recipe)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _from_yaml(value: Any, hint: Any) -> Any:
    """YAML's nearest type to ours: lists become tuples, `1e-3` (text, to YAML) and whole numbers become floats."""
    options = get_args(hint) if get_origin(hint) is not tuple else (hint,)
    if isinstance(value, list):
        item = next((get_args(each)[0] for each in options if get_origin(each) is tuple), None)
        return tuple(_from_yaml(each, item) for each in value)
    if isinstance(value, int) and int in options:
        return value
    if float in (hint, *options) and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value
