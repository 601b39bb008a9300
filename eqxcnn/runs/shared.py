"""The folder of a run in several processes: process 0 writes the folder, and sends the other processes what they
need."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ..errors import InputError
from ..recipe import Recipe
from ..recipe.files import recipe_from
from ..runtime.peers import Peers
from ..weights.tensors import fetch_to_host, fill, named_slots
from .checkpoints import Checkpoints
from .folder import Run

__all__ = ["check_same_data", "check_same_recipe", "create_run", "open_run"]


def create_run(peers: Peers, runs: Path, recipe: Recipe, **details: Any) -> Run:
    """Creates a run's folder; see `Run.create`. With several processes, only process 0 creates it."""
    if peers.count == 1:
        return Run.create(runs, recipe, **details)
    own = Run.create(runs, recipe, **details) if peers.is_first else None
    (folder, *_) = peers.gather(own and str(own.folder))
    return _SharedRun(peers, runs / Path(folder).name, recipe, own)


def open_run(peers: Peers, folder: Path) -> Run:
    """Opens a stopped run; see `Run.open`. With several processes, only process 0 needs to have the folder."""
    if peers.count == 1:
        return Run.open(folder)
    own = Run.open(folder) if peers.is_first else None
    (recipe, *_) = peers.gather(own and dataclasses.asdict(own.recipe))
    return _SharedRun(peers, folder, recipe_from(recipe, origin=str(folder)), own)


def check_same_recipe(peers: Peers, recipe: Recipe, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Refuses a process if its recipe, or a part passed to it from Python, differs from that of process 0.

    **Raises:** `InputError` naming the process and the settings, in all processes.
    """
    first, *others = peers.gather(dataclasses.asdict(recipe) | {"parts": parts})
    for index, other in enumerate(others, 1):
        if names := [
            f"`{name}` ({other.get(name)!r} and {first[name]!r})" for name in first if other[name] != first[name]
        ]:
            raise InputError(
                f"process {index} has a different recipe than process 0: {', '.join(names)}; start all processes with "
                "the same flags"
            )


def check_same_data(peers: Peers, fingerprint: str | None) -> None:
    """Refuses a process whose images differ from those of process 0.

    **Raises:** `InputError` naming the process, in all processes.
    """
    first, *others = peers.gather(fingerprint)
    if different := [index for index, other in enumerate(others, 1) if other != first]:
        raise InputError(
            f"the `data` of process {', '.join(map(str, different))} differ from those of process 0: give all "
            "processes the same images and labels"
        )


class _SharedRun(Run):
    """A `Run` for several processes: process 0 reads and writes the folder, and sends its contents to the
    other processes.

    **Arguments:**

    - `folder`: the run's folder; processes other than 0 write only their log into it.
    - `own`: the run that process 0 has created or opened; `None` in the other processes.
    """

    def __init__(self, peers: Peers, folder: Path, recipe: Recipe, own: Run | None) -> None:
        self.folder, self.recipe = folder, recipe
        self._peers, self._own = peers, own
        self.checkpoints = _SharedCheckpoints(peers, own and own.checkpoints)
        self.best = _SharedCheckpoints(peers, own and own.best)
        (self._rows, *_) = peers.gather(own and own.metrics)
        peers.enter_run(folder)

    def read_parts(self) -> dict[str, dict[str, str]]:
        """See `Run.read_parts`."""
        (parts, *_) = self._peers.gather(self._own and self._own.read_parts())
        return parts

    def check_data(self, fingerprint: str | None) -> None:
        """See `Run.check_data`; `check_same_data` compares the data of the processes."""
        if self._own is not None:
            self._own.check_data(fingerprint)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows so far. They are the same in all processes, except for measured times."""
        return self._rows if self._own is None else self._own.metrics

    def log(self, row: Mapping[str, Any]) -> None:
        """See `Run.log`."""
        if self._own is None:
            self._rows.append(dict(row))
        else:
            self._own.log(row)

    def rewind(self, epochs: int) -> None:
        """See `Run.rewind`."""
        if self._own is None:
            self._rows = [row for row in self._rows if row.get("epoch", epochs + 1) <= epochs]
        else:
            self._own.rewind(epochs)

    def __exit__(self, *exception: object) -> None:
        if self._own is not None:
            self._own.__exit__(*exception)


class _SharedCheckpoints(Checkpoints):
    """Checkpoints for several processes: process 0 writes and reads them on behalf of all processes.

    **Arguments:**

    - `own`: the checkpoints of process 0; `None` in the other processes.
    """

    def __init__(self, peers: Peers, own: Checkpoints | None) -> None:
        self._peers, self._own = peers, own

    def steps(self) -> tuple[int, ...]:
        """See `Checkpoints.steps`; all processes must call this."""
        (steps, *_) = self._peers.gather(self._own and self._own.steps())
        return tuple(steps)

    def save(self, step: int, tree: PyTree, others: Collection[int] | None = None) -> None:
        """See `Checkpoints.save`. The checkpoint exists only if all processes have the same step and the same arrays.

        **Raises:** `InputError` also if the arrays of a process differ from the arrays of process 0.
        """
        first, *rest = self._peers.gather([step, _digest(tree)])
        if different := [index for index, found in enumerate(rest, 1) if found != first]:
            raise InputError(
                f"process {', '.join(map(str, different))} has other weights than process 0 after step {step:,}, "
                "although all processes run the same steps: a machine is faulty, or the machines differ; resume on "
                "other machines"
            )
        failure = None
        if self._own is not None:
            try:
                self._own.save(step, tree, others)
            except InputError as error:
                failure = str(error)
        (failure, *_) = self._peers.gather(failure)
        if failure is not None:
            raise InputError(failure)

    def restore_latest(
        self, like: PyTree, notify: Callable[[str], object] = warnings.warn, steps: Sequence[int] | None = None
    ) -> tuple[int, PyTree] | None:
        """See `Checkpoints.restore_latest`; process 0 sends the arrays to the others."""
        found, failure = None, None
        if self._own is not None:
            try:
                found = self._own.restore_latest(like, notify, steps)
            except InputError as error:
                failure = str(error)
        ((step, failure), *_) = self._peers.gather([found and found[0], failure])
        if failure is not None:
            raise InputError(failure)
        if step is None:
            return None
        from jax.experimental.multihost_utils import broadcast_one_to_all

        slots = named_slots(like)
        tensors = (
            {name: np.zeros(slot.shape, slot.dtype) for name, slot in slots.items()}
            if found is None
            else fetch_to_host(named_slots(found[1]))
        )
        sent = broadcast_one_to_all(list(tensors.values()))
        return step, fill(like, dict(zip(tensors, map(np.asarray, sent), strict=True)), "the checkpoint does not fit")


def _digest(tree: PyTree) -> str:
    """Returns a digest of the arrays of a pytree."""
    digest = hashlib.sha256()
    for name, tensor in fetch_to_host(named_slots(tree)).items():
        digest.update(json.dumps([name, tensor.shape, str(tensor.dtype)]).encode())
        digest.update(np.ascontiguousarray(tensor).data if tensor.size else b"")
    return digest.hexdigest()
