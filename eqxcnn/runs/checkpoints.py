"""Checkpoints to resume from: Orbax checkpoints of named arrays, with checksums."""

import errno
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..errors import InputError, printable
from ..parsing import read_text
from ..weights.tensors import fetch_to_host, fill, named_slots

__all__ = ["Checkpoints"]

_CHECKSUMS = "SHA256SUMS"  # the file has the format of `sha256sum -c`
_SCRATCH = ".scratch"


class Checkpoints:
    """A run's `checkpoints/` folder, with one checkpoint per saved step.

    A checkpoint is written into a scratch folder and then renamed to its step, so a folder named by a step is complete.
    A save that was killed leaves only the scratch folder, which the next save removes. A checksum of every file reveals
    later damage.

    **Arguments:**

    - `folder`: created by the first save.
    - `keep`: number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"`keep` (={keep}) must be at least 1")
        self._folder = folder.absolute()  # Orbax refuses relative paths
        self._keep = keep
        self._damaged: set[int] = set()

    def steps(self) -> tuple[int, ...]:
        """Returns the steps that have a checkpoint, even a damaged one, oldest first."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted(int(name) for name in os.listdir(self._folder) if name.isdecimal()))

    def save(self, step: int, tree: PyTree, others: Collection[int] | None = None) -> None:
        """Saves the arrays of a pytree, and returns once they are on the disk.

        Replaces an earlier checkpoint of the same step, then removes old checkpoints and the checkpoints that
        `restore_latest` found damaged.

        **Arguments:**

        - `others`: the earlier steps whose checkpoints are kept; by default, the newest `keep` checkpoints are kept,
          including this one.

        **Raises:** `InputError` if the checkpoint cannot be written; the earlier checkpoints are then left unchanged.
        """
        # Orbax refuses arrays without elements; `restore_latest` recreates them from their shapes.
        tensors = fetch_to_host({name: slot for name, slot in named_slots(tree).items() if slot.size})
        scratch = self._folder / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
            _require_space(scratch, sum(tensor.nbytes for tensor in tensors.values()))
            _write(scratch / str(step), tensors)
            self._publish(step)
        except (OSError, ValueError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            reason = _system_reason(error)
            if reason is None:
                raise
            raise InputError(self._describe_failure(step, reason)) from error
        self._prune(step, others)

    def restore_latest(
        self, like: PyTree, notify: Callable[[str], object] = warnings.warn, steps: Sequence[int] | None = None
    ) -> tuple[int, PyTree] | None:
        """Restores the newest intact checkpoint.

        **Arguments:**

        - `like`: a pytree with the saved structure; its arrays (or `jax.ShapeDtypeStruct`) are replaced by the saved
          arrays.
        - `notify`: called with one line for each damaged checkpoint that is skipped.
        - `steps`: the steps to try, from the last in the list to the first; by default all steps, from the newest to
          the oldest.

        **Returns:** the step and the pytree; `None` if there is no checkpoint.

        **Raises:** `InputError` if all checkpoints are damaged, or if their arrays do not match the arrays of `like`.
        """
        steps = self.steps() if steps is None else [step for step in steps if step in self.steps()]
        for step in reversed(steps):
            folder = self._folder / str(step)
            found = _read_intact(folder, named_slots(like))
            if not isinstance(found, str):
                complaint = f"the checkpoint `{folder}` does not fit (resume with the recipe it was made with)"
                return step, fill(like, found, complaint)
            damage = found
            self._damaged.add(step)
            notify(f"the checkpoint `{folder}` is damaged ({damage}) and is skipped")
        if steps:
            raise InputError(f"every checkpoint in `{self._folder}` is damaged: remove this folder to start again")
        return None

    def _publish(self, step: int) -> None:
        """Moves a finished checkpoint from the scratch folder to its final path."""
        scratch, final = self._folder / _SCRATCH, self._folder / str(step)
        if final.exists():
            final.rename(scratch / "replaced")
        (scratch / str(step)).rename(final)
        self._damaged.discard(step)

    def _prune(self, newest: int, others: Collection[int] | None) -> None:
        """Removes damaged and old checkpoints.

        Undamaged checkpoints of steps after `newest` are kept, since this run has not reached these steps: another run
        wrote them."""
        intact = [step for step in self.steps() if step <= newest and step not in self._damaged]
        kept = {newest, *others} if others is not None else set(intact[-self._keep :])
        scratch = self._folder / _SCRATCH
        for step in self.steps():
            if step in self._damaged or step in set(intact) - kept:
                # The folder is renamed before it is removed, so that an interrupted removal leaves no partial
                # checkpoint under the step's name.
                (self._folder / str(step)).rename(scratch / f"old-{step}")
        self._damaged.clear()
        shutil.rmtree(scratch, ignore_errors=True)

    def _describe_failure(self, step: int, reason: str) -> str:
        saved = self.steps()
        left = f"the checkpoint of step {saved[-1]} is still there" if saved else "there is no earlier one"
        return f"the checkpoint of step {step} cannot be written to `{self._folder}`: {reason}; {left}"


def _write(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a checkpoint with its checksums and waits until it is on the disk."""
    import orbax.checkpoint as ocp  # slow to import

    # Compression barely reduces the size of weights, and takes longer than writing them.
    with _open_orbax(use_compression=False) as orbax:
        orbax.save(folder, ocp.args.PyTreeSave(tensors))
    (folder / _CHECKSUMS).write_text(_checksums(folder))
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _open_orbax(**options: Any) -> Any:
    """Returns an Orbax checkpointer for this process alone. By default, Orbax would wait for all processes of the
    run."""
    import orbax.checkpoint as ocp
    from orbax.checkpoint.options import MultiprocessingOptions

    index = jax.process_index()
    alone = MultiprocessingOptions(primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"p{index}")
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=alone, **options), multiprocessing_options=alone
    )


def _read_intact(folder: Path, slots: Mapping[str, Any]) -> dict[str, np.ndarray] | str:
    """Returns a checkpoint's arrays, including arrays without elements, or a description of the damage to its files."""
    if damage := _find_damage(folder):
        return damage
    try:
        return _read(folder, slots) | {name: np.zeros(s.shape, s.dtype) for name, s in slots.items() if s.size == 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # The checksums match, but Orbax cannot read the files.
        return printable(str(error))


def _read(folder: Path, slots: Mapping[str, Any]) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    with _open_orbax() as orbax:
        found: dict[str, Any] = orbax.metadata(folder).item_metadata.tree
        if all(name in slots and tuple(each.shape) == slots[name].shape for name, each in found.items()):
            return orbax.restore(folder, ocp.args.PyTreeRestore())
    # Arrays of unexpected shapes may be huge, so they are not read: the error message of `fill` needs only the shapes.
    return {name: np.broadcast_to(np.zeros((), each.dtype), each.shape) for name, each in found.items()}


def _find_damage(folder: Path) -> str | None:
    """Returns a description of the damage to a checkpoint's files; `None` if they are intact.

    Called before Orbax reads the files, since Orbax does not notice a changed byte, and prints tracebacks for other
    damage.
    """
    try:
        expected, found = read_text(folder / _CHECKSUMS), _checksums(folder)
    except (OSError, InputError) as error:
        return str(error)
    differing = set(expected.splitlines(keepends=True)) ^ set(found.splitlines(keepends=True))
    if not differing:
        return None
    name = max(line.partition("  ")[2].strip() for line in differing)
    return f"`{name}` does not match {_CHECKSUMS}"


def _checksums(folder: Path) -> str:
    """Returns a line `digest  path` per file, except for the list of checksums itself."""
    lines = []
    for path in _files(folder):
        if path.name != _CHECKSUMS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _require_space(folder: Path, size: int) -> None:
    """Raises `OSError` for a full disk before Orbax writes to it, since Orbax's threads would print tracebacks."""
    needed = int(1.1 * size) + 2**20  # the arrays, and some space for Orbax's index
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _system_reason(error: OSError | ValueError) -> str | None:
    """Returns the operating system's reason for a failed write; `None` for any other kind of error."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Orbax's storage library raises a ValueError for every failure, with the error number in its text.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
