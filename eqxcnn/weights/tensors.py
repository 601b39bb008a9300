"""Models as named arrays, and back: the same names in every process, whatever the file format."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import InputError

#: A place for an array: the array now in it, or what `eqx.filter_eval_shape` says of it.
Slot: TypeAlias = Array | np.ndarray | np.generic | jax.ShapeDtypeStruct

_SHOWN = 5
_UNFIT = "the tensors are not those of this model (build it as it was when they were saved)"


def to_tensors(model: PyTree, state: eqx.nn.State) -> dict[str, np.ndarray]:
    """Every array of a model and its state, by its dotted path: `conv1.weight`, `blocks.0.bn1.running_mean`.

    A state value goes by the path of the `eqx.nn.StateIndex` that looks it up; one made of several arrays gets a name
    for each below that path. Functions, `None` and Python numbers are no arrays and are left out.
    """
    return on_host(tensor_slots(model, state))


def tensor_slots(model: PyTree, state: eqx.nn.State) -> dict[str, Slot]:
    """The arrays of `to_tensors` where they are, on a device or abstract."""
    return named_slots(_merge(model, state))


def shapes(model: PyTree, state: eqx.nn.State) -> dict[str, tuple[int, ...]]:
    """The shape of every array that `to_tensors` would give, by its name; the model may be an abstract one."""
    return {name: slot.shape for name, slot in tensor_slots(model, state).items()}


def from_tensors(
    model: PyTree, state: eqx.nn.State, tensors: Mapping[str, np.ndarray | Array]
) -> tuple[PyTree, eqx.nn.State]:
    """Puts the arrays of `to_tensors` into a model and its state.

    **Arguments:**

    - `model`, `state`: what to fill; as good when made by `eqx.filter_eval_shape`, which computes no initial values.
    - `tensors`: one array for each name, of exactly its shape and dtype.

    **Returns:** the filled model and state.

    **Raises:** `InputError` that names the tensors which are missing, left over, or of another shape or dtype.
    """
    merged = fill(_merge(model, state), tensors, _UNFIT)
    leaves, structure = jax.tree.flatten(model, is_leaf=_is_index)
    parts = structure.flatten_up_to(merged)
    values = {leaf.marker: part for leaf, part in zip(leaves, parts, strict=True) if _is_index(leaf)}
    filled = [leaf if _is_index(leaf) else part for leaf, part in zip(leaves, parts, strict=True)]
    # Not `state.set`: that compares with the old value as an array, which an abstract one is not.
    old, markers = state.tree_flatten()
    new = [values.get(marker, value) for marker, value in zip(markers, old, strict=True)]
    return jax.tree.unflatten(structure, filled), eqx.nn.State.tree_unflatten(markers, new)


def named_slots(tree: PyTree) -> dict[str, Slot]:
    """The array leaves of any pytree, arrays or `jax.ShapeDtypeStruct`, by their dotted paths."""
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if _is_slot(leaf)
    ]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise InputError(f"two arrays have the name {_listing(twice)}: rename the dictionary key that holds a dot")
    return dict(named)


def on_host(slots: dict[str, Slot]) -> dict[str, np.ndarray]:
    """The arrays in the computer's own memory, fetched from their devices all at once."""
    return {name: np.asarray(array) for name, array in zip(slots, jax.device_get(list(slots.values())), strict=True)}


def fill(tree: PyTree, tensors: Mapping[str, np.ndarray | Array], complaint: str) -> PyTree:
    """Replaces each array leaf of `tree` by the tensor of its name, on the device where the leaf was.

    **Raises:** `InputError`, opening with `complaint`, unless names, shapes and dtypes are exactly those of `tree`.
    """
    slots = named_slots(tree)
    misfits = _misfits(slots, tensors)
    if misfits:
        raise InputError(f"{complaint}: {'; '.join(misfits)}")
    # `named_slots` walks the leaves in the order of `tree.map`.
    names = iter(slots)
    return jax.tree.map(lambda leaf: _put(tensors[next(names)], leaf) if _is_slot(leaf) else leaf, tree)


def _is_index(leaf: object) -> bool:
    return isinstance(leaf, eqx.nn.StateIndex)


def _is_slot(leaf: object) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _merge(model: PyTree, state: eqx.nn.State) -> PyTree:
    """The model with each state value in the place of the index that looks it up."""
    return jax.tree.map(lambda leaf: state.get(leaf) if _is_index(leaf) else leaf, model, is_leaf=_is_index)


def _misfits(slots: dict[str, Slot], tensors: Mapping[str, np.ndarray | Array]) -> list[str]:
    """What keeps the tensors from the slots, one clause for each kind."""
    both = [(name, slots[name], tensors[name]) for name in slots if name in tensors]
    clauses = (
        ("missing", [f"`{name}`" for name in slots if name not in tensors]),
        ("left over", [f"`{name}`" for name in tensors if name not in slots]),
        (
            "of another shape",
            [f"`{n}` is {list(t.shape)}, expected {list(s.shape)}" for n, s, t in both if s.shape != t.shape],
        ),
        (
            "of another dtype",
            [f"`{n}` is {t.dtype}, expected {s.dtype}" for n, s, t in both if s.dtype != t.dtype],
        ),
    )
    return [f"{len(found)} {kind} ({_listing(found)})" for kind, found in clauses if found]


def _listing(found: Iterable[str]) -> str:
    words = list(found)
    return ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")


def _put(tensor: np.ndarray | Array, slot: Slot) -> Slot:
    if isinstance(slot, np.ndarray | np.generic):
        return np.array(tensor)
    array = jnp.array(tensor)
    # An array made of a Python number promotes weakly; without that, later arithmetic could end in another dtype.
    if getattr(slot, "weak_type", False) and tensor.ndim == 0 and jnp.result_type(tensor.item()) == tensor.dtype:
        array = jnp.asarray(tensor.item())
    return jax.device_put(array, slot.sharding) if _is_committed(slot) else array


def _is_committed(slot: Slot) -> bool:
    """Returns whether an array is bound to its device."""
    try:
        return isinstance(slot, jax.Array) and slot.committed
    except (AttributeError, jax.errors.ConcretizationTypeError):  # a traced array has no device
        return False
