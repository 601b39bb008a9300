"""The devices of a run: a mesh with one axis, over which batches are split while weights are on every device."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..errors import InputError

__all__ = ["AXIS", "Devices", "choose_devices"]

#: The mesh axis along which batches are split.
AXIS = "data"

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class Devices:
    """The devices that compute a run.

    With one device, arrays stay where they are. With several, XLA splits each step over them: every device computes its
    part of the batch, and sums over the batch, such as BatchNorm's statistics and gradients, are sums over all devices.

    - `mesh`: the mesh of several devices, with the axis `data`; `None` for one device.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def replicate(self, tree: _Tree) -> _Tree:
        """Returns a pytree with a copy of its arrays on every device."""
        return self._place(tree, PartitionSpec())

    def split(self, tree: _Tree, axis: int) -> _Tree:
        """Returns a pytree whose arrays are split over the devices along an axis, whose size they divide."""
        return self._place(tree, PartitionSpec(*[None] * axis, AXIS))

    def constrain(self, tree: _Tree) -> _Tree:
        """Inside jit: makes XLA keep a copy of the arrays of a pytree on every device."""
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, PartitionSpec())
        return _map_arrays(lambda array: jax.lax.with_sharding_constraint(array, sharding), tree)

    def round_up(self, size: int) -> int:
        """Returns the smallest batch size from `size` on that the devices divide."""
        return -(-size // self.count) * self.count

    def check_batch_size(self, size: int, name: str = "batch_size") -> None:
        """Refuses a batch size that cannot be split evenly.

        **Raises:** `InputError` with the nearest sizes that can.
        """
        if size % self.count:
            below, above = size // self.count * self.count, self.round_up(size)
            nearest = f"{below} or {above}" if below else f"{above}"
            raise InputError(
                f"`{name}` (={size}) must be a multiple of the {self.count} devices that share each batch: give "
                f"{nearest}, or choose fewer `devices`"
            )

    def _place(self, tree: _Tree, spec: PartitionSpec) -> _Tree:
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)
        return _map_arrays(lambda array: jax.device_put(array, sharding), tree)


def choose_devices(wanted: int | Literal["all"] = "all") -> Devices:
    """Returns the first `wanted` devices of the default backend, or all of them.

    **Raises:** `InputError` if there are fewer.
    """
    found = jax.devices()
    if wanted != "all" and wanted > len(found):
        raise InputError(f"`devices` (={wanted}) is more than the {len(found)} of this machine: give fewer, or all")
    count = len(found) if wanted == "all" else wanted
    if count == 1:
        return Devices()
    return Devices(Mesh(np.array(found[:count]), (AXIS,), axis_types=(AxisType.Auto,)))


def _map_arrays(function: Any, tree: _Tree) -> _Tree:
    return jax.tree.map(
        lambda leaf: function(leaf) if eqx.is_array(leaf) or isinstance(leaf, np.ndarray) else leaf, tree
    )
