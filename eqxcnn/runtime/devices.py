"""The devices of a run, in one process or several. They form a mesh with one axis; each batch is split along this axis,
and each device has a copy of the weights."""

from collections.abc import Callable, Sequence
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
#: Each array of a train state that has fewer elements than this is copied to every device instead of being split: such
#: an array needs little memory, and gathering it would take time.
_MIN_SHARDED = 4096

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class Devices:
    """The devices that a run uses.

    With one device, arrays stay where they are. With several devices, XLA splits each step over them: each device
    computes one part of the batch. Sums over the batch, such as gradients and BatchNorm's statistics, are added up over
    all devices.

    If the devices belong to several processes, all processes call the same functions in the same order. Each process
    has the same weights, and reads its own part of every batch.

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

    @property
    def processes(self) -> int:
        """Number of processes that the devices belong to."""
        return 1 if self.mesh is None else len({device.process_index for device in self.mesh.devices.flat})

    def own_part(self, size: int) -> slice:
        """Returns this process's part of a batch of `size` images; `size` must be a multiple of `processes`."""
        if self.processes == 1:
            return slice(0, size)
        each = size // self.processes
        return slice(jax.process_index() * each, (jax.process_index() + 1) * each)

    def replicate(self, tree: _Tree) -> _Tree:
        """Returns a pytree with a copy of its arrays on every device."""
        return self._place(tree, lambda _: PartitionSpec())

    def split(self, tree: _Tree, axis: int) -> _Tree:
        """Returns a pytree whose arrays are split over the devices along an axis.

        The length of the axis must be a multiple of the number of devices. With several processes, each process passes
        its own part.
        """
        if self.processes == 1:
            return self._place(tree, lambda _: PartitionSpec(*[None] * axis, AXIS))
        assert self.mesh is not None
        sharding, processes = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS)), self.processes

        def join(part: Any) -> jax.Array:
            part = np.asarray(part)
            shape = (*part.shape[:axis], part.shape[axis] * processes, *part.shape[axis + 1 :])
            return jax.make_array_from_process_local_data(sharding, part, shape)

        return _map_arrays(join, tree)

    def split_rows(self, rows: np.ndarray) -> jax.Array:
        """Returns an array that is split over the devices along its first axis, padded with zeros if necessary.

        Each process passes the whole array, which may be a memory map, and reads only the rows of its own devices.
        """
        if self.mesh is None:
            return jax.numpy.asarray(rows)
        shape = (self.round_up(len(rows)), *rows.shape[1:])

        def read(index: Any) -> np.ndarray:
            part = rows[index]
            missing = len(range(*index[0].indices(shape[0]))) - len(part)
            return np.pad(part, [(0, missing), *[(0, 0)] * (rows.ndim - 1)])

        return jax.make_array_from_callback(shape, NamedSharding(self.mesh, PartitionSpec(AXIS)), read)

    def localize(self, tree: _Tree) -> _Tree:
        """Returns a train state or setup whose arrays are all in this process, so that it can be used without the other
        processes.

        Arrays that are split over the devices are gathered first, so all processes must call this.
        """
        if self.processes == 1:
            return tree
        whole = _map_arrays(lambda array: array if _is_whole(array) else _put(array, self._everywhere), tree)
        return _map_arrays(lambda array: array.addressable_data(0) if isinstance(array, jax.Array) else array, whole)

    def place_state(self, tree: _Tree) -> _Tree:
        """Places a train state on the devices: as a copy on every device, or split if `shards_params` is true."""
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
        """Refuses a batch size that is not a multiple of the number of devices.

        **Raises:** `InputError` that states the nearest valid sizes.
        """
        if size % self.count:
            below, above = size // self.count * self.count, self.round_up(size)
            nearest = f"{below} or {above}" if below else f"{above}"
            raise InputError(
                f"`{name}` (={size}) must be a multiple of {self.count}, the number of devices that share each "
                f"batch: give {nearest}, or choose fewer `devices`"
            )

    def _state_spec(self, array: Any) -> PartitionSpec:
        """Splits a large array along the longest axis whose length is a multiple of the number of devices."""
        axes = [axis for axis, size in enumerate(array.shape) if size and size % self.count == 0]
        if not self.shards_params or not axes or array.size < _MIN_SHARDED:
            return PartitionSpec()
        longest = max(axes, key=lambda axis: array.shape[axis])
        return PartitionSpec(*[None] * longest, AXIS)

    def _place(self, tree: _Tree, choose: Callable[[Any], PartitionSpec]) -> _Tree:
        mesh = self.mesh
        if mesh is None:
            return tree
        return _map_arrays(lambda array: _put(array, NamedSharding(mesh, choose(array))), tree)

    @property
    def _everywhere(self) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec())


def choose_devices(wanted: int | Literal["all"] = "all", shards_params: bool = False) -> Devices:
    """Returns the first `wanted` devices of the default backend, or all of them.

    **Arguments:**

    - `shards_params`: see `Devices`.

    **Raises:** `InputError` if there are fewer than `wanted` devices.
    """
    found = jax.devices()
    if wanted != "all" and wanted > len(found):
        where = "this machine" if jax.process_count() == 1 else "all processes together"
        raise InputError(
            f"`devices` (={wanted}) exceeds the number of devices of {where} ({len(found)}): give a smaller number, "
            "or all"
        )
    count = len(found) if wanted == "all" else wanted
    if count == 1 and jax.process_count() == 1:
        return Devices()
    return Devices(Mesh(np.array(_choose(found, count)), (AXIS,), axis_types=(AxisType.Auto,)), shards_params)


def _choose(found: Sequence[Any], count: int) -> list[Any]:
    """Returns the same number of devices from each process, with the devices of one process next to each other."""
    processes = sorted({device.process_index for device in found})
    if count % len(processes):
        raise InputError(
            f"`devices` (={count}) must be a multiple of the number of processes ({len(processes)}), because all use "
            f"the same number of devices: give {-(-count // len(processes)) * len(processes)}"
        )
    each = count // len(processes)
    own = {process: [device for device in found if device.process_index == process] for process in processes}
    few = next((process for process in processes if len(own[process]) < each), None)
    if few is not None:
        raise InputError(
            f"process {few} has {len(own[few])} devices, and others have more: set `devices` to a smaller number"
        )
    return [device for process in processes for device in own[process][:each]]


def _put(array: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array on the devices. Every process must pass the same array."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.jit(lambda same: same, out_shardings=sharding)(array)
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        # `make_array_from_callback` does not accept PRNG keys.
        data = _put(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _is_whole(array: Any) -> bool:
    """Returns whether this process has all elements of an array."""
    return not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated


def _map_arrays(function: Any, tree: _Tree) -> _Tree:
    return jax.tree.map(
        lambda leaf: function(leaf) if eqx.is_array(leaf) or isinstance(leaf, np.ndarray) else leaf, tree
    )
