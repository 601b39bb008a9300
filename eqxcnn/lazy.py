"""Module-level `__getattr__` and `__dir__` for lazy imports: a module is imported when a name in it is first used."""

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, names: Collection[str], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and the `__dir__` of a package.

    **Arguments:**

    - `package`: the package's `__name__`.
    - `names`: the names that the package exports.
    - `homes`: the module of each exported name; an exported name without a module is a module itself.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module `{package}` has no attribute `{name}`")
        module = import_module(f".{homes.get(name, name)}", package)
        value = getattr(module, name) if name in homes else module
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return get, list_names
