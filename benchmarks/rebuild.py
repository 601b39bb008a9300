"""Repeats the training of the networks with weights in the package, and compares the results with the records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eqxcnn.data import open_source
from eqxcnn.errors import InputError, nearest
from eqxcnn.runs.environment import environment
from eqxcnn.saved_classifier import load
from eqxcnn.training import fit, load_recipe, resume
from eqxcnn.weights import save_safetensors, to_tensors
from eqxcnn.weights.bundled import BUNDLED, Bundled

from .bundle import evaluate, replace_tensors, round_tensors

#: Largest difference of the accuracy on another machine, where the last bits differ: about that of two seeds.
MAX_DIFFERENCE = 0.005
#: Facts about a machine; where all of them are equal, training gives the same bytes.
_LAYOUT = ("jax", "jaxlib", "equinox", "optax", "processor", "cores", "devices")


@dataclass(frozen=True)
class Rebuilt:
    """The result of a repeated training.

    - `name`: the network.
    - `recorded`, `accuracy`: the accuracy in the package's record, and the accuracy of the repeated training.
    - `is_same_file`: whether the new file of weights equals the package's file, byte for byte.
    - `is_same_layout`: whether packages, processor and number of cores are those of the recorded run.
    """

    name: str
    recorded: float
    accuracy: float
    is_same_file: bool
    is_same_layout: bool

    @property
    def is_as_recorded(self) -> bool:
        """Whether the result matches the record: on the same layout the same bytes, otherwise a similar accuracy."""
        if self.is_same_layout:
            return self.is_same_file
        return abs(self.accuracy - self.recorded) <= MAX_DIFFERENCE

    def describe(self) -> str:
        """Returns a line about the result, for printing."""
        file = "the same bytes" if self.is_same_file else "other bytes"
        layout = "the recorded machine layout" if self.is_same_layout else "another machine layout"
        verdict = "as recorded" if self.is_as_recorded else "NOT as recorded"
        return f"{self.name}: {self.accuracy:.2%} (recorded {self.recorded:.2%}), {file} on {layout}: {verdict}"


def rebuild(name: str, data: Path, runs: Path) -> Rebuilt:
    """Trains a network with its recorded recipe and seed; continues a run that was interrupted.

    **Arguments:**

    - `data`: the folder that contains the data sets, each in a folder with its name.
    - `runs`: the folder in which the run's folder `rebuild-NAME` is made.

    **Raises:** `InputError` if the package has no weights of this name, or if the data set is missing.
    """
    if name not in BUNDLED:
        raise InputError(f"the package has no weights of `{name}`; {nearest(name, BUNDLED)}")
    row = BUNDLED[name]
    source, folder = data / row.data, runs / f"rebuild-{name}"
    if not source.is_dir():
        raise InputError(f"`data` (={data}) must contain the folder `{row.data}`, on which `{name}` was trained")
    if not (folder / "model").is_dir():
        if folder.is_dir():
            resume(folder)
        else:
            fit(load_recipe(row.recipe).replace(data=str(source), seed=row.seed), runs=runs, name=folder.name)
    return compare(row, folder, str(source))


def compare(row: Bundled, run: Path, data: str) -> Rebuilt:
    """Compares a finished run with a record of the package."""
    trained = load(run)
    tensors = round_tensors(to_tensors(trained.model, trained.state), row.dtype)
    with TemporaryDirectory() as folder:
        digest = save_safetensors(Path(folder) / "weights.safetensors", tensors, {"model": row.model})
    rounded = replace_tensors(trained, tensors)
    split = open_source(data).decode("test", preprocess=trained.preprocess)
    accuracy = evaluate(rounded, split, load_recipe(row.recipe).test_views).accuracy
    return Rebuilt(row.model, row.accuracy, accuracy, digest == row.sha256, is_same_layout(row.training))


def is_same_layout(training: Mapping[str, Any]) -> bool:
    """Returns whether this machine has the same packages, processor and number of cores as a recorded run."""
    recorded, here = training["environment"], environment()
    return all(recorded.get(key) == here.get(key) for key in _LAYOUT)
