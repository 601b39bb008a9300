"""A trained classifier and the facts about its run, read from the files that training writes."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hub_models import check_model_folder, find_address
from ..hub_models.fetch import RECIPE
from ..parsing import parse_json, read_text
from ..recipe import Recipe, load_recipe
from ..recipe.files import to_yaml
from ..runs.folder import read_metrics
from ..saved_classifier import find_model_folder, load, save
from ..weights import load_safetensors, write_text_atomically
from ..weights.bundled import Bundled
from ..weights.published import find_published
from ..weights.tensors import check_finite

__all__ = ["Trained", "open_trained"]

#: The license of the weights in this package.
_OWN_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class Trained:
    """A trained classifier in a folder, and what is known about its training.

    - `folder`: the folder of `config.json` and `model.safetensors`.
    - `config`: the contents of `config.json`.
    - `recipe_path`, `recipe`: the file of the run's recipe, and the recipe; `None` if the folder is not part of a run.
    - `scores`: the test's scores by name, such as `accuracy`, `loss` and `count`; empty if they are not recorded.
    - `environment`: the contents of `environment.json`; empty if there is no such file.
    - `license`: the license of the weights; `None` if it is not known.
    """

    folder: Path
    config: Mapping[str, Any]
    recipe_path: Path | None = None
    recipe: Recipe | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    license: str | None = None

    @property
    def is_from_zoo(self) -> bool:
        """Whether `eqxcnn.load` can build the network from its name."""
        return "." not in self.config["model"]


@contextmanager
def open_trained(run: Path | str) -> Iterator[Trained]:
    """Opens a finished run, a folder that `eqxcnn.save` has written, or a model with trained weights in this package.

    The weights are loaded as a check: a classifier that cannot be loaded must not be shared.

    **Raises:** `InputError` if there is no finished run, or if its files are invalid or damaged.
    """
    if find_address(run) is not None:
        raise InputError(f"`{run}` is on the Hub already: pull it to a folder to push it under another name")
    published = find_published(run)
    if isinstance(published, Bundled):
        with tempfile.TemporaryDirectory() as folder:
            yield _save_bundled(published, Path(folder))
    elif published is not None:
        raise InputError(f"the weights of `{run}` are on the Hub already, as {published.repository}: name a run")
    else:
        yield _read_folder(Path(run))


def _save_bundled(published: Bundled, folder: Path) -> Trained:
    save(folder, load(published.model))
    recipe = load_recipe(published.recipe).replace(seed=published.seed)
    write_text_atomically(folder / RECIPE, to_yaml(recipe))
    scores = {"accuracy": published.accuracy, "loss": published.loss, "count": published.test_images}
    environment = published.training["environment"]
    config = check_model_folder(folder, f"`{published.model}`")
    return Trained(folder, config, folder / RECIPE, recipe, scores, environment, _OWN_LICENSE)


def _read_folder(run: Path) -> Trained:
    folder = find_model_folder(run)
    config = check_model_folder(folder, f"`{run}`")
    trained = Trained(folder, config)
    if trained.is_from_zoo:
        load(folder)
    else:
        check_finite(load_safetensors(folder / "model.safetensors"), f"`{run}`", "train again with a lower rate")
    # A run keeps its files beside `model/`; a pulled model has its recipe beside its weights.
    root = folder.resolve().parent if folder.resolve().name == "model" else folder
    if not (root / RECIPE).exists():
        return trained
    return dataclasses.replace(
        trained,
        recipe_path=root / RECIPE,
        recipe=load_recipe(root / RECIPE),
        scores=_read_scores(root),
        environment=_read_environment(root / "environment.json"),
    )


def _read_scores(root: Path) -> dict[str, float]:
    """Returns the numbers in the logged row of the test, without the prefix `test_`."""
    row = next((row for row in read_metrics(root) if "test_accuracy" in row), {})
    named = {name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")}
    return {name: value for name, value in named.items() if isinstance(value, int | float)}


def _read_environment(path: Path) -> dict[str, Any]:
    found = parse_json(read_text(path), f"`{path}`") if path.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"`{path}` must hold a JSON object, as training writes it")
    return found
