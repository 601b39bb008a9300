"""The model families: those in `eqxcnn/models`, those of other packages, and those registered at run time."""

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from . import models, plugins
from .errors import InputError, nearest
from .types import Variant

__all__ = ["GROUP", "families", "find", "plugin_problems", "register", "unwrap"]

#: Entry points of this group add models: each names a module with a `variants` table, or the table itself.
GROUP = "eqxcnn.models"
#: The syntax of a model name. A model name is used in folder names, flags and YAML files.
_NAME = re.compile(r"[A-Za-z]\w*(?:[.-]\w+)*", re.ASCII)
_MAX_NAME = 60
#: In a recipe, `own` stands for a model that is passed from Python.
_RESERVED = ("own",)
#: Maps the name of each model that is defined outside `eqxcnn/models` to its family and table row.
_added: dict[str, tuple[str, Variant]] = {}


@cache
def families() -> Mapping[str, tuple[str, Variant]]:
    """Returns a mapping from the name of each variant, in sorted order, to its family and its table row.

    The family of a model in `eqxcnn/models` is the name of its file; the families of other packages contain a `/`. The
    folder and the entry points are scanned once; a file added to `models/` needs no registration.
    """
    plugin_problems()
    return MappingProxyType(dict(sorted((_added | _scan_models()).items())))


def find(name: str) -> tuple[str, Variant]:
    """Returns the family and the table row of a model.

    If a file in `models/` has the name of the model, as `lenet.py` has, only this file is imported.

    **Raises:** `InputError` with the nearest names if there is no such model.
    """
    is_scanned = families.cache_info().currsize > 0
    if not is_scanned and name.isidentifier() and importlib.util.find_spec(f"{models.__name__}.{name}"):
        row = importlib.import_module(f"{models.__name__}.{name}").variants.get(name)
        if row is not None:
            return name, row
    if name in families():
        return families()[name]
    # The model may belong to a package that cannot be imported.
    why = "; ".join((nearest(name, families()).rstrip(",. ?"), *plugin_problems()))
    raise InputError(
        f"there is no model named `{name}`; {why}; if another package defines it, install or `--import` that package"
    )


def _scan_models() -> dict[str, tuple[str, Variant]]:
    found: dict[str, tuple[str, Variant]] = {}
    for module in pkgutil.iter_modules(models.__path__):
        variants = importlib.import_module(f"{models.__name__}.{module.name}").variants
        for name, row in variants.items():
            if name in found:
                raise RuntimeError(f"two variants are named `{name}`: {found[name][0]} and {module.name}")
            found[name] = (module.name, row)
    return found


@cache
def plugin_problems() -> tuple[str, ...]:
    """Adds the models that other packages define in entry points; later calls only return the cached result.

    **Returns:** one error sentence for each entry point that cannot be used. No models of these entry points are added.
    """
    problems = []
    for point in plugins.all_entry_points(GROUP):
        try:
            _add_table(f"{plugins.package(point)}/{point.name}", plugins.import_object(point))
        except InputError as error:
            problems.append(str(error))
    return tuple(problems)


def _add_table(family: str, loaded: Any) -> None:
    variants = loaded if isinstance(loaded, Mapping) else getattr(loaded, "variants", None)
    if not isinstance(variants, Mapping):
        raise InputError(f"`{family}` in `{GROUP}` must name a module with a `variants` table, or the table itself")
    _check(variants, f" of `{family}`")
    _added.update({name: (family, row) for name, row in variants.items()})


def register(name: str, variant: Variant) -> None:
    """Adds a model to the zoo; its name then works everywhere: in recipes, commands and `eqxcnn.load`.

    A program must register the model before it loads a run of the model; on the command line, `--import` imports the
    module that registers it. An installed package can add its models with an entry point of the group `eqxcnn.models`
    instead.

    **Arguments:**

    - `name`: letters, digits, `_`, `-` and `.`, with a letter first. A name that exists already is refused.
    - `variant`: how to build the model, and the facts about it; `make` returns an `eqxcnn.types.Classifier`.

    **Raises:** `InputError` for a name that exists or is invalid, or for an invalid `variant`.
    """
    _check({name: variant}, "")
    make = unwrap(variant.make)
    _added[name] = (f"{make.__module__}/{getattr(make, '__qualname__', type(make).__qualname__)}", variant)
    families.cache_clear()


def unwrap(make: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the class or function inside the `partial`s of a constructor."""
    return unwrap(make.func) if isinstance(make, partial) else make


def _check(variants: Mapping[Any, Any], where: str) -> None:
    """Checks the names and table rows of models before they are added.

    **Raises:** `InputError`.
    """
    known = _added | _scan_models()
    for name, row in variants.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME or name in _RESERVED:
            raise InputError(
                f"the model name {name!r}{where} must have at most {_MAX_NAME} letters, digits, `_`, `-` and `.`, "
                f"start with a letter, and not be {' or '.join(map(repr, _RESERVED))}"
            )
        if name in known and known[name][1] is not row:
            raise InputError(f"the model `{name}`{where} exists already, in `{known[name][0]}`: choose another name")
        _check_row(f"the variant `{name}`{where}", row)


def _check_row(what: str, row: Any) -> None:
    if not isinstance(row, Variant) or not callable(row.make):
        raise InputError(f"{what} must be an `eqxcnn.types.Variant` whose `make` builds the model")
    shapes: Any = (row.input, row.strides)
    if not all(isinstance(shape, tuple) and all(type(n) is int and n > 0 for n in shape) for shape in shapes):
        raise InputError(
            f"{what} must have tuples of integers above 0 as `input` (={row.input}) and `strides` (={row.strides})"
        )
    numbers = {"num_classes": row.num_classes, "params": row.params, "smallest": row.smallest}
    for field, number in numbers.items():
        if type(number) is not int or number < 1:
            raise InputError(f"{what} must have a `{field}` (={number!r}) that is an integer above 0")
    if len(row.input) != 3 or min(row.input[:2]) < row.smallest:
        raise InputError(
            f"{what} must have `(height, width, channels)` as `input` (={row.input}), with height and width at least "
            f"`smallest` (={row.smallest})"
        )
    if not isinstance(row.source, str) or not isinstance(row.task, str) or not row.task:
        raise InputError(
            f"{what} must have a string as `source` (={row.source!r}) and a non-empty string as `task` (={row.task!r})"
        )
