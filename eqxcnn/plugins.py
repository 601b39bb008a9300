"""What other packages add to eqxcnn: their entry points, read when a name is first looked up, and `--import`."""

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import Any

from .errors import InputError


@cache
def entry_points(group: str) -> Mapping[str, metadata.EntryPoint]:
    """Returns the entry points of a group, such as `eqxcnn.models`, by name, sorted; nothing is imported.

    The installed packages are scanned once. Of two packages with the same name in a group, `load` refuses both.
    """
    return MappingProxyType({point.name: point for point in _all_entry_points(group)})


@cache
def _all_entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    return tuple(sorted(metadata.entry_points(group=group), key=lambda point: (point.name, package(point))))


def package(point: metadata.EntryPoint) -> str:
    """Returns the name of the installed package that has an entry point."""
    return point.module.partition(".")[0] if point.dist is None else point.dist.name


def load(point: metadata.EntryPoint) -> Any:
    """Imports the object that an entry point names.

    **Raises:** `InputError` that names the package and the cause, if the import fails or if another package has an
        entry of this name.
    """
    packages = [package(other) for other in _all_entry_points(point.group) if other.name == point.name]
    if len(packages) > 1:
        raise InputError(
            f"the packages {', '.join(f'`{name}`' for name in packages)} all have an entry `{point.name}` in "
            f"`{point.group}`: uninstall all but one"
        )
    return _import(point.load, f"`{point.value}` of the package `{package(point)}`", "repair or uninstall the package")


def import_modules(names: Iterable[str]) -> None:
    """Imports the modules that `--import` names, which register what they add.

    **Raises:** `InputError` that names the module and the cause.
    """
    for name in names:
        _import(
            lambda name=name: importlib.import_module(name),
            f"`{name}`, given by `--import`,",
            "give the dotted name of an installed module, or of one in the folder that the command runs in",
        )


def _import(function: Any, what: str, advice: str) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"{what} cannot be imported ({type(error).__name__}: {error}): {advice}") from error
