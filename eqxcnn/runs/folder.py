"""A run's folder: what was asked, what happened, and what came of it."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout

from ..errors import InputError
from ..recipe.files import load_recipe, to_yaml
from ..recipe.recipe import Recipe
from ..weights import write_text_atomically
from .checkpoints import Checkpoints


class Run:
    """`runs/<model>-<data>-<time>/`, never overwritten, and held by one process at a time until the `with` block ends.

    - `folder`: the run's path.
    - `recipe`: what it was started with, every setting resolved.
    - `checkpoints`: what a resumed run starts from.
    - `best`: the train state at the end of the best epoch, where the recipe keeps that.
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

    @classmethod
    def create(cls, runs: Path, recipe: Recipe, data_name: str, name: str | None = None) -> "Run":
        """Makes a new folder under `runs`, of this name or of one with the time, with recipe and environment in it."""
        folder = new_folder(runs, name or run_name(recipe, data_name))
        write_text_atomically(folder / "recipe.yaml", to_yaml(recipe))
        write_text_atomically(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Opens a run that was stopped, to go on with it.

        **Raises:** `InputError` when `folder` is no run or the run is finished.
        """
        if not (folder / "recipe.yaml").is_file():
            raise InputError(f"`{folder}` is no run folder: it has no recipe.yaml; give one that training has made")
        if (folder / "model" / "config.json").exists():
            raise InputError(f"the run `{folder}` is finished; use its model/, or start a new run with more epochs")
        return cls(folder, load_recipe(folder / "recipe.yaml"))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows logged so far; a last line cut short by a crash is left out."""
        return read_metrics(self.folder)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to `metrics.jsonl`."""
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise InputError(
                f"`{path}` cannot be written: {error.strerror}; the checkpoints are still there"
            ) from error

    def rewind(self, epochs: int) -> None:
        """Keeps the logged rows of the first `epochs` epochs: training is about to log the others again."""
        kept = [row for row in self.metrics if row.get("epoch", epochs + 1) <= epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_text_atomically(self.folder / "metrics.jsonl", text)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        """Lets other processes have the folder."""
        self._lock.release()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; a last line cut short by a crash is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def environment() -> dict[str, Any]:
    """What a result depends on besides the recipe: command, versions, machine, cores, devices, commit."""
    packages = ("eqxcnn", "jax", "jaxlib", "equinox", "optax", "numpy", "datasets", "pillow")
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": _cores(),
        "devices": [device.device_kind for device in jax.devices()],
        "commit": _commit(),
    }


def _processor() -> str:
    """The CPU's name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cores() -> int | None:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _commit() -> str | None:
    """The commit of the code when it runs from a checkout, with `-dirty` behind it when files differ from it."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        asked = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()


def run_name(recipe: Recipe, data_name: str) -> str:
    """What a run's folder is called that has just begun."""
    return f"{recipe.model}-{data_name}-{datetime.now():%Y%m%d-%H%M%S}"


def new_folder(runs: Path, stem: str) -> Path:
    """Makes `runs/stem`, or `runs/stem-2` and so on when that is taken."""
    attempt = 1
    while True:
        folder = runs / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if not folder.is_dir():
                raise InputError(f"`{runs}` cannot hold runs: {error.filename} is a file") from error
            attempt += 1
        except OSError as error:
            raise InputError(f"the run folder `{folder}` cannot be made: {error.strerror}") from error
        else:
            return folder
