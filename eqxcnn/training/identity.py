"""The identity of an object across processes: its qualified name, and a digest of its settings."""

import functools
import hashlib
import io
import json
import logging
import sys
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..weights.tensors import fetch_to_host, named_slots

__all__ = ["digest_settings", "digest_structure", "digest_values", "qualified_name"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Types whose `repr` determines the value.
_BY_REPR = (range, bytearray, np.dtype, PurePath)
#: Objects of these types differ between processes, so only their names and classes count.
_OF_PROCESS = (type, types.ModuleType, logging.Logger, io.IOBase)
#: Attributes of a callable: a method's object, a method's function, and the function that a decorator wraps.
_INNER = ("__self__", "__func__", "__wrapped__")


def qualified_name(part: Any) -> str:
    """Returns the qualified name of a function or of an object's class, such as `my_package.losses.focal`."""
    owner = part
    while isinstance(owner, functools.partial):
        owner = owner.func
    owner = owner if isinstance(getattr(owner, "__qualname__", None), str) else type(owner)
    # Methods of types that are written in C have no `__module__`.
    module = getattr(owner, "__module__", None) or type(getattr(owner, "__self__", owner)).__module__
    return f"{module}.{owner.__qualname__}"


def digest_settings(part: Any) -> str:
    """Returns a digest of an object's settings: its fields and attributes, its bound arguments, and the values that a
    function closes over. The code of a function is not included."""
    return _digest(_Describer(with_values=True)(part))


def digest_structure(tree: PyTree) -> str:
    """Returns a digest of a network's structure: names, shapes and dtypes of its arrays, and all of its settings."""
    arrays = [[name, list(slot.shape), str(slot.dtype)] for name, slot in named_slots(tree).items()]
    return _digest([arrays, _Describer(with_values=False)(tree)])


def digest_values(tree: PyTree) -> str:
    """Returns a digest of the values of a pytree's arrays."""
    digest = hashlib.sha256()
    for name, array in fetch_to_host(named_slots(tree)).items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _digest(described: Any) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


class _Describer:
    """Describes objects as strings that are the same in every process.

    - `with_values`: whether the values of arrays count as settings; if not, only their shapes and dtypes do.
    """

    def __init__(self, with_values: bool) -> None:
        self._with_values = with_values
        # The objects are kept alive, so that their ids are not reused.
        self._seen: dict[int, tuple[Any, str]] = {}

    def __call__(self, value: Any) -> str:
        """Returns the description of an object, computed once.

        Where an object refers to itself, its qualified name replaces the description.
        """
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) not in self._seen:
            self._seen[id(value)] = value, qualified_name(value)
            self._seen[id(value)] = value, _digest([qualified_name(value), self._describe(value)])
        return self._seen[id(value)][1]

    def _describe(self, value: Any) -> Any:
        if isinstance(value, _OF_PROCESS):
            return getattr(value, "__name__", None)
        if isinstance(value, _BY_REPR):
            return repr(value)
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._describe_array(value)
        if isinstance(value, functools.partial):
            return [self(value.func), self(value.args), self(value.keywords)]
        if isinstance(value, Mapping):
            return [[self(key), self(item)] for key, item in value.items()]
        if isinstance(value, set | frozenset):
            return sorted(map(self, value))
        if isinstance(value, slice):
            return [self(each) for each in (value.start, value.stop, value.step)]
        items = list(map(self, value)) if isinstance(value, list | tuple) else None
        if _is_importable(value):
            return self._describe_defaults(value)
        cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_filled(cell)]
        inner = [getattr(value, name, None) for name in _INNER if name not in _attributes(value)]
        attributes = [[name, self(each)] for name, each in _attributes(value).items()]
        return [items, list(map(self, cells)), list(map(self, inner)), self._describe_defaults(value), attributes]

    def _describe_array(self, value: Any) -> Any:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        if array.dtype == object:
            return [list(array.shape), *map(self, array.flat)]
        values = hashlib.sha256(array.tobytes()).hexdigest() if self._with_values else None
        return [str(array.dtype), list(array.shape), values]

    def _describe_defaults(self, value: Any) -> Any:
        if hasattr(value, "__wrapped__"):
            # Wrappers by beartype have parameters whose names contain memory addresses, so defaults are not described.
            return None
        return [self(getattr(value, name, None)) for name in ("__defaults__", "__kwdefaults__")]


def _attributes(value: Any) -> dict[str, Any]:
    """Returns the fields and attributes of an object by name, except cached results such as a hash."""
    slots = [slot for each in type(value).__mro__ for slot in _as_tuple(each.__dict__.get("__slots__", ()))]
    names = dict.fromkeys([*getattr(value, "__dataclass_fields__", ()), *slots, *getattr(value, "__dict__", ())])
    found = {name: getattr(value, name, None) for name in names if name not in ("__dict__", "__weakref__")}
    return {name: each for name, each in found.items() if not _is_cached(value, name, each)}


def _is_cached(value: Any, name: str, attribute: Any) -> bool:
    """Returns whether an attribute is a cached result, such as a hash, which may differ between processes."""
    try:
        is_hash = type(attribute) is int and attribute == hash(value)
    except Exception:
        is_hash = False
    return is_hash or isinstance(getattr(type(value), name, None), functools.cached_property)


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_importable(value: Any) -> bool:
    """Returns whether an object can be imported by its qualified name, like a function at the top level of a module."""
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return False
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
