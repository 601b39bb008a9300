"""The devices of a run: a mesh with one axis, over which batches are split while weights are on every device."""

from collections.abc import Callable
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
#: Smaller arrays of a train state are on every device: gathering them would take longer than storing them.
_MIN_SHARDED = 4096

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class Devices:
    """The devices that compute a run.

    With one device, arrays stay where they are. With several, XLA splits each step over them: every device computes its
    part of the batch, and sums over the batch, such as BatchNorm's statistics and gradients, are sums over all devices.

    - `mesh`: the mesh of several devices, with the axis `data`; `None` for one device.
    - `shards_params`: whether each large array of a train state is split over the devices instead of being on every
        device (fully sharded data parallelism; Rajbhandari et al. 2020, "ZeRO", arXiv:1910.02054, stage 3). XLA then
        gathers the weights of a layer when it needs them.
    """

    mesh: Mesh | None = None
    shards_params: bool = False

    @property
    def count(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def replicate(self, tree: _Tree) -> _Tree:
        """Returns a pytree with a copy of its arrays on every device."""
        return self._place(tree, lambda _: PartitionSpec())

    def split(self, tree: _Tree, axis: int) -> _Tree:
        """Returns a pytree whose arrays are split over the devices along an axis, which they must divide evenly."""
        return self._place(tree, lambda _: PartitionSpec(*[None] * axis, AXIS))

    def split_rows(self, rows: np.ndarray) -> jax.Array:
        """Returns an array that is split over the devices along its first axis, padded with zeros if necessary."""
        padding = [(0, self.round_up(len(rows)) - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
        padded: Any = np.pad(rows, padding)
        return self.split(padded, axis=0) if self.mesh is not None else jax.numpy.asarray(rows)

    def place_state(self, tree: _Tree) -> _Tree:
        """Returns a train state on the devices: a copy on every device, or split if `shards_params`."""
        return self._place(tree, self._state_spec)

    def constrain_state(self, tree: _Tree) -> _Tree:
        """Inside jit: makes XLA keep a train state where `place_state` puts it."""
        mesh = self.mesh
        if mesh is None:
            return tree

        def constrain(array: Any) -> Any:
            return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, self._state_spec(array)))

        return _map_arrays(constrain, tree)

    def round_up(self, size: int) -> int:
        """Returns a size, rounded up to a multiple of the number of devices."""
        return -(-size // self.count) * self.count

    def check_batch_size(self, size: int, name: str = "batch_size") -> None:
        """Refuses a batch size that cannot be split evenly.

        **Raises:** `InputError` that states the nearest valid sizes.
        """
        if size % self.count:
            below, above = size // self.count * self.count, self.round_up(size)
            nearest = f"{below} or {above}" if below else f"{above}"
            raise InputError(
                f"`{name}` (={size}) must be a multiple of the {self.count} devices that share each batch: give "
                f"{nearest}, or choose fewer `devices`"
            )

    def _state_spec(self, array: Any) -> PartitionSpec:
        """Splits a large array along its longest axis that the number of devices divides."""
        axes = [axis for axis, size in enumerate(array.shape) if size and size % self.count == 0]
        if not self.shards_params or not axes or array.size < _MIN_SHARDED:
            return PartitionSpec()
        longest = max(axes, key=lambda axis: array.shape[axis])
        return PartitionSpec(*[None] * longest, AXIS)

    def _place(self, tree: _Tree, choose: Callable[[Any], PartitionSpec]) -> _Tree:
        mesh = self.mesh
        if mesh is None:
            return tree
        return _map_arrays(lambda array: jax.device_put(array, NamedSharding(mesh, choose(array))), tree)


def choose_devices(wanted: int | Literal["all"] = "all", shards_params: bool = False) -> Devices:
    """Returns the first `wanted` devices of the default backend, or all of them.

    **Arguments:**

    - `shards_params`: see `Devices`.

    **Raises:** `InputError` if there are fewer than `wanted` devices.
    """
    found = jax.devices()
    if wanted != "all" and wanted > len(found):
        raise InputError(f"`devices` (={wanted}) is more than the {len(found)} of this machine: give fewer, or all")
    count = len(found) if wanted == "all" else wanted
    if count == 1:
        return Devices()
    return Devices(Mesh(np.array(found[:count]), (AXIS,), axis_types=(AxisType.Auto,)), shards_params)


def _map_arrays(function: Any, tree: _Tree) -> _Tree:
    return jax.tree.map(
        lambda leaf: function(leaf) if eqx.is_array(leaf) or isinstance(leaf, np.ndarray) else leaf, tree
    )
