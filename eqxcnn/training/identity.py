"""The identity of an object across processes: its qualified name, and a digest of its settings."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..weights.tensors import fetch_to_host, named_slots

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Settings deeper than this are left out.
_MAX_DEPTH = 12


def qualified_name(part: Any) -> str:
    """Returns the name of a function, or of an object's class: `my_package.losses.focal`."""
    owner = part.func if isinstance(part, functools.partial) else part
    owner = owner if hasattr(owner, "__qualname__") else type(owner)
    return f"{owner.__module__}.{owner.__qualname__}"


def digest_settings(part: Any) -> str:
    """Returns a digest of an object's settings: its fields, arguments that are bound, and values that a function has
    from where it was defined. The code of a function is not part of it."""
    return hashlib.sha256(json.dumps(_describe(part, _MAX_DEPTH)).encode()).hexdigest()


def digest_structure(tree: PyTree) -> str:
    """Returns a digest of a pytree's structure: names, shapes and dtypes of its arrays, and its other plain leaves."""
    arrays = [[name, list(slot.shape), str(slot.dtype)] for name, slot in named_slots(tree).items()]
    others = [
        [jax.tree_util.keystr(path), repr(leaf)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if isinstance(leaf, _PLAIN)
    ]
    return hashlib.sha256(json.dumps([arrays, others]).encode()).hexdigest()


def digest_values(tree: PyTree) -> str:
    """Returns a digest of the values of a pytree's arrays."""
    digest = hashlib.sha256()
    for name, array in fetch_to_host(named_slots(tree)).items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _describe(value: Any, depth: int) -> Any:
    """Returns a value that JSON can hold and that is the same in every process."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth == 0:
        return qualified_name(value)

    def describe(each: Any) -> Any:
        return _describe(each, depth - 1)

    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, functools.partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, Mapping):
        return [[describe(key), describe(item)] for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        items = [describe(item) for item in value]
        return [qualified_name(value), sorted(items, key=str) if isinstance(value, set | frozenset) else items]
    # A function has its closure and its defaults; a dataclass or a module its fields.
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_filled(cell)]
    settings = [cells, getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None)]
    fields = [getattr(value, name, None) for name in getattr(value, "__dataclass_fields__", ())]
    return [qualified_name(value), describe(settings) if any(settings) else None, describe(fields) if fields else None]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
