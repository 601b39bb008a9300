"""A trained classifier and the record of its training, read from the files that training writes."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..hub_models import check_model_folder, find_address
from ..hub_models.fetch import CONFIG, RECIPE, WEIGHTS
from ..inference import ImageClassifier
from ..parsing import parse_json, read_text
from ..recipe import Recipe, load_recipe
from ..recipe.files import to_yaml
from ..runs.folder import read_metrics
from ..saved_classifier import find_model_folder, load, save
from ..saved_config import read_config
from ..weights import load_safetensors, write_text_atomically
from ..weights.bundled import Bundled
from ..weights.published import find_published
from ..weights.tensors import check_finite

__all__ = ["Trained", "open_trained"]

#: The license of the weights in this package.
_OWN_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class Trained:
    """A trained classifier in a folder, and the record of its training.

    - `folder`: the folder that contains `config.json` and `model.safetensors`.
    - `config`: the contents of `config.json`.
    - `classifier`: the loaded classifier; `None` if `eqxcnn.load` cannot build its network from the name.
    - `recipe_path`, `recipe`: the path of `recipe.yaml` and its contents; `None` if there is no such file.
    - `scores`: the test scores by name, such as `accuracy`, `loss` and `count`; empty if none are recorded.
    - `environment`: the contents of `environment.json`; empty if there is no such file.
    - `license`: the license of the weights; `None` if it is not known.
    """

    folder: Path
    config: Mapping[str, Any]
    classifier: ImageClassifier | None
    recipe_path: Path | None = None
    recipe: Recipe | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    license: str | None = None


@contextmanager
def open_trained(run: Path | str) -> Iterator[Trained]:
    """Opens a trained classifier; `run` is a folder or a name, as for `push`.

    The weights are loaded, because a classifier that cannot be loaded must not be shared.

    **Raises:** `InputError` if the run is not finished, or if its files are invalid or damaged.
    """
    if find_address(run) is not None:
        raise InputError(f"`{run}` is already on the Hub: pull it to a folder to push it under another name")
    published = find_published(run)
    if isinstance(published, Bundled):
        with tempfile.TemporaryDirectory() as folder:
            yield _save_bundled(published, Path(folder))
    elif published is not None:
        raise InputError(
            f"the weights of `{run}` are already on the Hub, as {published.repository}: push a run instead"
        )
    else:
        yield _read_folder(Path(run))


def _save_bundled(published: Bundled, folder: Path) -> Trained:
    classifier = load(published.model)
    save(folder, classifier)
    recipe = load_recipe(published.recipe).replace(seed=published.seed)
    write_text_atomically(folder / RECIPE, to_yaml(recipe))
    scores = {"accuracy": published.accuracy, "loss": published.loss, "count": published.test_images}
    environment = published.training["environment"]
    config = read_config(folder / CONFIG)
    return Trained(folder, config, classifier, folder / RECIPE, recipe, scores, environment, _OWN_LICENSE)


def _read_folder(run: Path) -> Trained:
    folder = find_model_folder(run)
    config = check_model_folder(folder, f"`{run}`")
    if "." in config["model"]:  # A qualified class name: the network is not from the zoo.
        trained = Trained(folder, config, None)
        check_finite(load_safetensors(folder / WEIGHTS), f"`{run}`", "train again with a lower learning rate")
    else:
        trained = Trained(folder, config, load(folder))
    # A run has its recipe beside the folder `model/`; a pulled model has it beside the weights.
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
    """Returns the test scores in the run's log; their names lack the prefix `test_`."""
    row = next((row for row in read_metrics(root) if "test_accuracy" in row), {})
    named = {name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")}
    return {name: value for name, value in named.items() if isinstance(value, int | float)}


def _read_environment(path: Path) -> dict[str, Any]:
    found = parse_json(read_text(path), f"`{path}`") if path.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"`{path}` must hold a JSON object, as training writes it")
    return found
