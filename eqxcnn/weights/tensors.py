"""Converts models to named arrays and back. The names are the same in every process and file format."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import InputError
from ..runtime.transfer import to_device
from ..types import ModelState

__all__ = [
    "Slot",
    "check_finite",
    "describe_problems",
    "fetch_to_host",
    "fill",
    "from_tensors",
    "named_slots",
    "tensor_shapes",
    "tensor_slots",
    "to_tensors",
]

#: An array leaf of a model, or its shape and dtype as returned by `eqx.filter_eval_shape`.
Slot: TypeAlias = Array | np.ndarray | np.generic | jax.ShapeDtypeStruct

_MAX_NAMES = 5
_MISMATCH = "the tensors do not fit this model (build it with the settings it was saved with)"


def to_tensors(model: PyTree, state: ModelState) -> dict[str, np.ndarray]:
    """Returns every array of a model and its state by dotted path: `conv1.weight`, `blocks.0.bn1.running_mean`.

    The name of a state value is the path of its `eqx.nn.StateIndex`; a state value with several arrays has one name
    per array below that path. Functions, `None` and Python numbers are not included. The arrays are contiguous.
    """
    return fetch_to_host(tensor_slots(model, state))


def tensor_slots(model: PyTree, state: ModelState) -> dict[str, Slot]:
    """Returns the leaves that `to_tensors` copies to the host: arrays on their device, or abstract arrays."""
    return named_slots(_merge(model, state))


def tensor_shapes(model: PyTree, state: ModelState) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of `to_tensors` by its name; the model may be abstract."""
    return {name: slot.shape for name, slot in tensor_slots(model, state).items()}


@overload
def from_tensors(
    model: PyTree, state: eqx.nn.State, tensors: Mapping[str, np.ndarray | Array]
) -> tuple[PyTree, eqx.nn.State]: ...
@overload
def from_tensors(
    model: PyTree, state: ModelState, tensors: Mapping[str, np.ndarray | Array]
) -> tuple[PyTree, ModelState]: ...
def from_tensors(
    model: PyTree, state: ModelState, tensors: Mapping[str, np.ndarray | Array]
) -> tuple[PyTree, ModelState]:
    """Returns a model and its state, filled with named arrays; the inverse of `to_tensors`.

    **Arguments:**

    - `model`, `state`: the model to fill. It may be abstract (`eqx.filter_eval_shape`), which saves computing initial
      values.
    - `tensors`: one array per name, with exactly the expected shape and dtype.

    **Raises:** `InputError` that names the tensors that are missing or unexpected, or have a wrong shape or dtype.
    """
    merged = fill(_merge(model, state), tensors, _MISMATCH)
    leaves, structure = jax.tree.flatten(model, is_leaf=_is_index)
    parts = structure.flatten_up_to(merged)
    values = {leaf.marker: part for leaf, part in zip(leaves, parts, strict=True) if _is_index(leaf)}
    filled = [leaf if _is_index(leaf) else part for leaf, part in zip(leaves, parts, strict=True)]
    if state is None:
        return jax.tree.unflatten(structure, filled), None
    # `state.set` cannot be used, because it fails where the old value is abstract.
    old, markers = state.tree_flatten()
    new = [values.get(marker, value) for marker, value in zip(markers, old, strict=True)]
    return jax.tree.unflatten(structure, filled), eqx.nn.State.tree_unflatten(markers, new)


def named_slots(tree: PyTree) -> dict[str, Slot]:
    """Returns the array leaves of any pytree by dotted path; a leaf is an array or a `jax.ShapeDtypeStruct`.

    **Raises:** `InputError` if two leaves have the same path, which happens if a dictionary key contains a dot.
    """
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if _is_slot(leaf)
    ]
    duplicates = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if duplicates:
        raise InputError(f"two arrays have the name {_join(duplicates)}: rename the dictionary key that contains a dot")
    return dict(named)


def fetch_to_host(slots: dict[str, Slot]) -> dict[str, np.ndarray]:
    """Returns the arrays as contiguous NumPy arrays, fetched from their devices in one call."""
    arrays = jax.device_get(list(slots.values()))
    return {name: np.asarray(array, order="C") for name, array in zip(slots, arrays, strict=True)}


def fill(tree: PyTree, tensors: Mapping[str, np.ndarray | Array], message: str) -> PyTree:
    """Replaces each array leaf of `tree` by the tensor of the same name, on the leaf's device.

    **Raises:** `InputError` that starts with `message`, unless names, shapes and dtypes match those of `tree` exactly.
    """
    slots = named_slots(tree)
    if mismatches := _describe_mismatches(slots, tensors):
        raise InputError(f"{message}: {mismatches}")
    # `named_slots` and `jax.tree.map` visit the leaves in the same order.
    names = iter(slots)
    return jax.tree.map(lambda leaf: _put(tensors[next(names)], leaf) if _is_slot(leaf) else leaf, tree)


def check_finite(tensors: Mapping[str, np.ndarray], origin: str, advice: str = "give another file") -> None:
    """Refuses tensors with values that are NaN or infinite.

    **Arguments:**

    - `origin`, `advice`: the subject of the error message, and the advice at its end.

    **Raises:** `InputError` that names the first such tensors.
    """
    broken = [f"`{name}`" for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        raise InputError(
            f"{origin} has NaN or infinite values in {len(broken)} tensors ({_join(broken)}), so its training diverged "
            f"or it is damaged: {advice}"
        )


def _is_finite(tensor: np.ndarray) -> bool:
    return not jnp.issubdtype(tensor.dtype, jnp.inexact) or bool(np.isfinite(tensor).all())


def _is_index(leaf: object) -> bool:
    return isinstance(leaf, eqx.nn.StateIndex)


def _is_slot(leaf: object) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _merge(model: PyTree, state: ModelState) -> PyTree:
    """Returns the model with each state index replaced by its value."""
    if state is None:
        return model
    return jax.tree.map(lambda leaf: state.get(leaf) if _is_index(leaf) else leaf, model, is_leaf=_is_index)


def describe_problems(problems: Mapping[str, Sequence[str]]) -> str:
    """Returns, for each kind of problem, how many tensors have it and the names of the first few; empty if none has."""
    return "; ".join(f"{len(names)} {kind} ({_join(names)})" for kind, names in problems.items() if names)


def _describe_mismatches(slots: dict[str, Slot], tensors: Mapping[str, np.ndarray | Array]) -> str:
    """Describes the differences between the tensors and the slots; the text is empty if there are none."""
    both = [(name, slots[name], tensors[name]) for name in slots if name in tensors]
    return describe_problems(
        {
            "missing": [f"`{name}`" for name in slots if name not in tensors],
            "unexpected": [f"`{name}`" for name in tensors if name not in slots],
            "with a wrong shape": [
                f"`{n}` is {list(t.shape)}, expected {list(s.shape)}" for n, s, t in both if s.shape != t.shape
            ],
            "with a wrong dtype": [f"`{n}` is {t.dtype}, expected {s.dtype}" for n, s, t in both if s.dtype != t.dtype],
        }
    )


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")


def _put(tensor: np.ndarray | Array, slot: Slot) -> Slot:
    if isinstance(slot, np.ndarray | np.generic):
        return np.array(tensor)
    array = to_device(tensor) if isinstance(tensor, np.ndarray | np.generic) else jnp.array(tensor)
    # A weakly typed array must stay weakly typed, or later arithmetic could give a different dtype.
    if getattr(slot, "weak_type", False) and tensor.ndim == 0 and jnp.result_type(tensor.item()) == tensor.dtype:
        array = jnp.asarray(tensor.item())
    return jax.device_put(array, slot.sharding) if _is_committed(slot) else array


def _is_committed(slot: Slot) -> bool:
    """Returns whether an array is committed to its device; JAX may move an uncommitted array to another device."""
    try:
        return isinstance(slot, jax.Array) and slot.committed
    except (AttributeError, jax.errors.ConcretizationTypeError):  # a traced array has no device
        return False
