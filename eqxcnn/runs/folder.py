"""A run's folder: its recipe, environment, data, metrics and checkpoints."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InputError, printable, show
from ..parsing import parse_json, read_text
from ..recipe import Recipe, load_recipe
from ..recipe.files import to_yaml
from ..registry import has_type
from ..weights import write_text_atomically
from .checkpoints import Checkpoints
from .environment import environment

__all__ = ["MAX_STEPS", "Run", "create_folder", "read_metrics", "run_name"]

_DATA_FILE = "data.json"
_PARTS_FILE = "parts.json"
#: Steps are counted in 32 bits.
MAX_STEPS = 2**31 - 1
#: Maximum length in bytes of the part of a run's name that comes from the data's name.
_MAX_NAME = 100
#: Maximum size of `metrics.jsonl` in bytes, enough for a million epochs.
_MAX_METRICS = 1 << 30


class Run:
    """The folder `runs/<model>-<data>-<timestamp>/`, locked against other processes until the `with` block ends.

    - `folder`: the path of the run's folder.
    - `recipe`: the run's recipe, with all defaults filled in.
    - `checkpoints`: checkpoints to resume from.
    - `best`: checkpoints of the best epochs, if the recipe keeps them.
    """

    def __init__(self, folder: Path, recipe: Recipe):
        self.folder, self.recipe = folder, recipe
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=recipe.keep_checkpoints)
        self.best = Checkpoints(folder / "best", keep=1)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"another process is training in `{folder}`; wait for it or start a new run") from error
        except OSError as error:
            raise InputError(f"the run folder `{folder}` cannot be locked: {error.strerror}") from error

    @classmethod
    def create(
        cls,
        runs: Path,
        recipe: Recipe,
        data_name: str,
        name: str | None = None,
        fingerprint: str | None = None,
        parts: Mapping[str, Mapping[str, str]] | None = None,
        model_name: str | None = None,
    ) -> "Run":
        """Creates a new folder under `runs` with the recipe, the environment and the data's fingerprint in it.

        **Arguments:**

        - `name`: the folder's name; by default `<model>-<data>-<timestamp>`.
        - `fingerprint`: a digest of the data's content; see `check_data`.
        - `parts`: the identity of each part that was not built from the recipe; see `read_parts`.
        - `model_name`: replaces `<model>` in the default name; by default the recipe's `model`.

        **Raises:** `InputError` if the folder cannot be made.
        """
        if name is None:
            name = run_name(model_name or recipe.model, data_name)
        folder = create_folder(runs, name)
        write_text_atomically(folder / "recipe.yaml", to_yaml(recipe))
        write_text_atomically(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
        data = {"source": recipe.data, "fingerprint": fingerprint}
        write_text_atomically(folder / _DATA_FILE, json.dumps(data, indent=2) + "\n")
        if parts:
            write_text_atomically(folder / _PARTS_FILE, json.dumps(parts, indent=2) + "\n")
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Opens a stopped run to resume it.

        **Raises:** `InputError` if `folder` is not a run's folder, or the run is finished.
        """
        # For a name that is too long, `os.path.isfile` returns `False`, but `Path.is_file` raises an error.
        if not os.path.isfile(folder / "recipe.yaml"):
            raise InputError(f"`{folder}` is not a run folder: it has no recipe.yaml; give a folder made by training")
        if (folder / "model" / "config.json").exists():
            raise InputError(f"the run `{folder}` is finished; use its model/, or start a new run with more epochs")
        return cls(folder, load_recipe(folder / "recipe.yaml"))

    def read_parts(self) -> dict[str, dict[str, str]]:
        """Returns the identity of each part that was passed from Python when the run was started.

        **Raises:** `InputError` if `parts.json` is damaged.
        """
        path = self.folder / _PARTS_FILE
        if not path.exists():
            return {}
        parts = parse_json(read_text(path), f"`{path}`")
        if not has_type(parts, dict[str, dict[str, str]]) or not all("name" in part for part in parts.values()):
            raise InputError(f"`{path}` does not list the parts of the run: restore the file, or start a new run")
        return parts

    def check_data(self, fingerprint: str | None) -> None:
        """Refuses data whose content has changed since the run started.

        **Arguments:**

        - `fingerprint`: the data's current fingerprint; `None` if the data have no fingerprint.

        **Raises:** `InputError` if the run recorded a different fingerprint.
        """
        path = self.folder / _DATA_FILE
        if not path.exists():
            return
        data = parse_json(read_text(path), f"`{path}`")
        if not isinstance(data, dict) or not isinstance(data.get("fingerprint", 0), str | None):
            raise InputError(f"`{path}` does not hold the data's fingerprint: restore the file, or start a new run")
        recorded = data["fingerprint"]
        if recorded is not None and recorded != fingerprint:
            raise InputError(
                f"the images of `data` (={self.recipe.data!r}) have changed since the run `{self.folder}` started: "
                "restore them, or start a new run"
            )

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`; see `read_metrics`."""
        return read_metrics(self.folder)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to `metrics.jsonl`.

        **Raises:** `InputError` if the row cannot be written.
        """
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise InputError(
                f"`{path}` cannot be written: {error.strerror}; the checkpoints are still there"
            ) from error

    def rewind(self, epochs: int) -> None:
        """Keeps only the rows of the first `epochs` epochs, since training is about to log the later epochs again."""
        kept = [row for row in self.metrics if row.get("epoch", epochs + 1) <= epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_text_atomically(self.folder / "metrics.jsonl", text)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's `metrics.jsonl`, except for a last line that a crash cut short.

    **Raises:** `InputError` naming a line that does not have the format in which training writes rows.
    """
    path = folder / "metrics.jsonl"
    lines = read_text(path, limit=_MAX_METRICS).split("\n")[:-1] if path.exists() else []
    return [_read_row(line, f"line {number} of `{path}`") for number, line in enumerate(lines, 1)]


def _read_row(line: str, what: str) -> dict[str, Any]:
    # A loss may be NaN, which `json` writes as `NaN`.
    row = parse_json(line, what, allow_nan=True)
    if not isinstance(row, dict) or not all(_is_metric(name, value) for name, value in row.items()):
        raise InputError(
            f"{what} must be a JSON object of numbers; only a validation or test metric other than loss and accuracy "
            "may be a list of numbers"
        )
    for name in ("epoch", "step", "test_count"):
        if name in row and not (isinstance(row[name], int) and 0 <= row[name] <= MAX_STEPS):
            raise InputError(f"{what}: `{name}` (={row[name]}) must be a whole number from 0 to {MAX_STEPS}")
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy"):
        if row.get(name, 0) < 0 or row.get(name, 0) > 1:  # an accuracy over no images is NaN
            raise InputError(f"{what}: `{name}` (={row[name]}) must be from 0 to 1")
    return row


def _is_metric(name: str, value: Any) -> bool:
    """Returns whether a value is a number. Validation and test metrics other than loss, accuracy and count may also be
    lists of numbers, with `None` for a missing number."""
    part, _, metric = name.partition("_")
    if isinstance(value, list) and part in ("validation", "test") and metric not in ("loss", "accuracy", "count"):
        return all(item is None or _is_number(item) for item in value)
    return _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def run_name(model_name: str, data_name: str) -> str:
    """Returns the default run name, `<model>-<data>-<timestamp>`."""
    # File names have at most 255 bytes, and control characters would garble the listing of a folder.
    short = printable(data_name.encode(errors="replace")[:_MAX_NAME].decode(errors="ignore"))
    return f"{model_name}-{short.replace('/', '_')}-{datetime.now():%Y%m%d-%H%M%S}"


def create_folder(runs: Path, name: str) -> Path:
    """Creates `runs/name`, or `runs/name-2` and so on if that exists.

    **Raises:** `InputError` if the name is not valid for a folder, or if the folder cannot be made.
    """
    if name in ("", ".", "..") or os.sep in name or name != printable(name, len(name)):
        raise InputError(
            f"`name` (={show(name)}) must be the name of a folder, without `{os.sep}` or control characters"
        )
    attempt = 1
    while True:
        folder = runs / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if not folder.is_dir():
                raise InputError(f"`{runs}` cannot hold runs: {error.filename} is a file") from error
            attempt += 1
        except (OSError, ValueError) as error:  # `ValueError`: the name contains a null character
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"the run folder `{folder}` cannot be made: {reason}") from error
        else:
            return folder
