"""Recipes as YAML: reads files and the recipes shipped with the package, and writes them."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..errors import InputError, nearest
from .checks import coerce
from .recipe import Recipe

#: The folder of the recipes shipped with the package.
_SHIPPED = Path(__file__).parents[1] / "recipes"

#: Settings that had another name before version 0.2: old name to new name.
RENAMED = {
    "warmup_share": "warmup_fraction",
    "first_factor": "initial_lr_factor",
    "last_factor": "final_lr_factor",
    "mix_switch": "mix_switch_probability",
}


def load_recipe(source: str | Path) -> Recipe:
    """Reads a recipe from a YAML file, or a shipped one by its name.

    **Raises:** `InputError` for a missing file, an unknown setting, or an invalid value.
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
        raise InputError(f"the recipe `{source}` is not valid YAML: {' '.join(str(error).split())}") from error
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
    """Makes a recipe of plain values; an old name of a setting is accepted with a warning.

    **Arguments:**

    - `values`: from YAML or JSON.
    - `origin`: where they come from, for error messages.

    **Raises:** `InputError` for an unknown setting, naming the nearest known one, and for an invalid value.
    """
    known = get_type_hints(Recipe)
    settings: dict[str, Any] = {}
    for given, value in values.items():
        name = RENAMED.get(given, given)
        if name not in known:
            raise InputError(f"`{given}` in the recipe `{origin}` is not a setting; {nearest(str(given), known)}")
        if name in settings:
            raise InputError(f"the recipe `{origin}` sets `{name}` twice, also by its old name `{given}`: keep one")
        if name != given:
            warnings.warn(f"`{given}` in the recipe `{origin}` is now called `{name}`", FutureWarning, stacklevel=2)
        settings[name] = coerce(name, _from_yaml(value, known[name]), known[name])
    return Recipe(**settings)


def to_yaml(recipe: Recipe) -> str:
    """Returns the recipe as YAML that `load_recipe` reads back to an equal one."""
    values = dataclasses.asdict(recipe)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _from_yaml(value: Any, hint: Any) -> Any:
    """Converts YAML's types to ours: lists to tuples, whole numbers and `1e-3` (a string in YAML) to floats."""
    options = get_args(hint) if get_origin(hint) is not tuple else (hint,)
    if isinstance(value, list):
        item = next((get_args(option)[0] for option in options if get_origin(option) is tuple), None)
        return tuple(_from_yaml(each, item) for each in value)
    if isinstance(value, int) and int in options:
        return value
    if float in (hint, *options) and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return value
