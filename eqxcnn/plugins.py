"""Extensions from other packages: the flag `--import`, and entry points. Entry points are read when first needed."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import metadata
from types import MappingProxyType
from typing import Any

from .errors import InputError

__all__ = ["IMPORT_HELP", "all_entry_points", "entry_points", "import_object", "load", "package", "take_imports"]

#: Help text of the flag `--import`, which `take_imports` adds to a command.
IMPORT_HELP = (
    "--import MODULE, which may be repeated, first imports a module that registers models, data or augmentations."
)


@cache
def entry_points(group: str) -> Mapping[str, metadata.EntryPoint]:
    """Returns the entry points of a group such as `eqxcnn.data`, sorted and keyed by the names that users write.

    Nothing is imported. If two packages have an entry of the same name, `load` refuses both.
    """
    return MappingProxyType({point.name: point for point in all_entry_points(group)})


@cache
def all_entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Returns the entry points of a group, sorted by name and package; the installed packages are scanned once."""
    return tuple(sorted(metadata.entry_points(group=group), key=lambda point: (point.name, package(point))))


def package(point: metadata.EntryPoint) -> str:
    """Returns the name of the installed package that declares an entry point."""
    return point.module.partition(".")[0] if point.dist is None else point.dist.name


def load(point: metadata.EntryPoint) -> Any:
    """Imports the object of an entry point that a user has named.

    **Raises:** `InputError` that names the package and the cause, if the import fails or if another package has an
        entry point of the same name.
    """
    packages = [package(other) for other in all_entry_points(point.group) if other.name == point.name]
    if len(packages) > 1:
        raise InputError(
            f"the packages {', '.join(f'`{name}`' for name in packages)} all have an entry `{point.name}` in "
            f"`{point.group}`: uninstall all but one"
        )
    return import_object(point)


def import_object(point: metadata.EntryPoint) -> Any:
    """Imports the object that an entry point names, even if another package has an entry point of the same name.

    **Raises:** `InputError` that names the package and the cause, if the import fails.
    """
    return _import(point.load, f"`{point.value}` of the package `{package(point)}`", "repair or uninstall the package")


def take_imports(arguments: Sequence[str]) -> list[str]:
    """Imports the modules that a command line names with `--import`, and returns the other arguments.

    **Raises:** `InputError` for `--import` without a module; if an import fails, an `InputError` that names the module
        and the cause.
    """
    others, waiting = [], iter(arguments)
    for argument in waiting:
        flag, equals, name = argument.partition("=")
        if flag != "--import":
            others.append(argument)
            continue
        name = name if equals else next(waiting, "")
        if not name or name.startswith("-"):
            raise InputError("`--import` needs the name of a module after it, such as `my_package.models`")
        _import(
            partial(importlib.import_module, name),
            f"`{name}`, given with `--import`,",
            "give the dotted name of an installed module, or of a module in the current folder",
        )
    return others


def _import(function: Callable[[], Any], what: str, advice: str) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"{what} cannot be imported ({type(error).__name__}: {error}): {advice}") from error
