"""Saves a trained classifier to a folder, and loads it from a folder, from the Hub, or by its name in the zoo."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .errors import InputError
from .hub_models import resolve_run
from .inference import ImageClassifier
from .networks import as_pair
from .registry import build, check_keywords
from .runtime.transfer import to_device
from .saved_config import FORMAT, preprocess_of, read_config, shortest
from .types import Classifier, ModelState, Network
from .weights import from_tensors, load_safetensors, save_safetensors, to_tensors, write_text_atomically
from .weights.bundled import Bundled
from .weights.files import digest_file
from .weights.published import Published, build_published, find_published
from .weights.tensors import check_finite

__all__ = ["find_model_folder", "load", "save"]


def save(folder: Path | str, classifier: ImageClassifier) -> None:
    """Saves a classifier to a folder as `model.safetensors` and `config.json`.

    Each file is replaced atomically, so an interrupted call leaves no partial file.

    **Raises:** `InputError` if a file cannot be written.
    """
    folder = Path(folder)
    config = {
        "format": FORMAT,
        "model": classifier.name,
        "in_channels": classifier.in_channels,
        "image_size": list(classifier.image_size),
        "class_names": list(classifier.class_names),
        "mean": shortest(classifier.mean),
        "std": shortest(classifier.std),
        "resize": classifier.resize,
        "crop_fraction": float(classifier.crop_fraction),
        "interpolation": classifier.interpolation,
        **({"architecture": dict(classifier.architecture)} if classifier.architecture else {}),
    }
    try:
        json.dumps(config, allow_nan=False)
        folder.mkdir(parents=True, exist_ok=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"the settings of `{classifier.name}` cannot be written as JSON: {error}") from error
    except OSError as error:
        raise InputError(f"the folder `{folder}` cannot be created: {error.strerror}") from error
    config["sha256"] = save_safetensors(
        folder / "model.safetensors", to_tensors(classifier.model, classifier.state), {"model": classifier.name}
    )
    # `config.json` is written last, so a folder that contains it is complete.
    write_text_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def load(
    folder: Path | str,
    *,
    model: Network | tuple[Network, ModelState] | None = None,
    allow_non_finite: bool = False,
) -> ImageClassifier:
    """Loads a trained classifier: from a run folder or its `model/` folder, by name, or from the Hub.

    A name loads trained weights with their preprocessing and class names. The weights are part of this package, or are
    downloaded once from the Hugging Face Hub. If a folder has that name, the folder is loaded instead. `hub:user/name`
    loads a model that someone has pushed to the Hub; it is downloaded unless its newest commit is in the local cache.
    Untrusted folders and models are safe to load: nothing in them is run.

    **Arguments:**

    - `folder`: a run folder, a folder that `save` has written, the name of a model in
      `zoo.list_models(pretrained=True)`, or a model on the Hub, `hub:user/name` or `hub:user/name@revision`, where the
      revision is a branch, a tag or a commit hash.
    - `model`: for a network that is not from the zoo: a network of the same structure, with any weights, or a pair
      `(net, state)`.
    - `allow_non_finite`: whether weights may be NaN or infinite, as after training that diverged.

    **Raises:** `InputError` if the folder contains no trained model, if its files are invalid or damaged, or if
        weights cannot be downloaded.
    """
    if model is None and (published := find_published(folder)) is not None:
        return _load_published(str(folder), published)
    folder = find_model_folder(resolve_run(folder))
    config = read_config(folder / "config.json")
    preprocess = preprocess_of(config)
    # JSON stores tuples as lists, and the constructors expect tuples.
    architecture = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.get("architecture", {}).items()
    }
    template = _build_abstract(folder / "config.json", config, architecture) if model is None else as_pair(model)
    tensors = _load_tensors(folder / "model.safetensors", config.get("sha256"))
    network, state = from_tensors(*template, tensors)
    if not allow_non_finite:
        check_finite(tensors, f"`{folder}`", "load it with `allow_non_finite=True` only to examine it")
    return ImageClassifier(
        name=config["model"],
        model=eqx.nn.inference_mode(network),
        state=state,
        mean=to_device(np.asarray(config["mean"], np.float32)),
        std=to_device(np.asarray(config["std"], np.float32)),
        image_size=tuple(config["image_size"]),
        class_names=tuple(config["class_names"]),
        architecture=tuple(architecture.items()),
        resize=preprocess.resize,
        crop_fraction=preprocess.crop_fraction,
        interpolation=preprocess.interpolation,
    )


def find_model_folder(folder: Path) -> Path:
    """Returns the folder that holds `config.json`: a run's `model/`, or the folder itself.

    **Raises:** `InputError` if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder `{folder}`: give a run folder, the model folder inside it, the name of a model with "
            "trained weights (`python -m eqxcnn.zoo list --pretrained`), or `hub:user/name` for a model on the Hub"
        )
    inner = folder / "model"
    folder = inner if (inner / "config.json").exists() else folder
    if not (folder / "config.json").exists():
        unfinished = "its training has not finished" if (folder / "recipe.yaml").exists() else "it has no config.json"
        raise InputError(f"`{folder}` contains no trained model: {unfinished}")
    return folder


def _load_published(name: str, published: Published | Bundled) -> ImageClassifier:
    model, state = build_published(name, key=jax.random.key(0))
    how = published.preprocess
    return ImageClassifier(
        name=name,
        model=eqx.nn.inference_mode(model),
        state=state,
        mean=to_device(np.asarray(how.mean, np.float32)),
        std=to_device(np.asarray(how.std, np.float32)),
        image_size=how.size,
        class_names=published.class_names,
        resize=how.resize,
        crop_fraction=how.crop_fraction,
        interpolation=how.interpolation,
    )


def _build_abstract(
    path: Path, config: dict[str, Any], architecture: dict[str, Any]
) -> tuple[Classifier, eqx.nn.State]:
    """Builds the model of a `config.json` with shapes in place of weights, because the weights are loaded
    afterwards."""
    if "." in config["model"]:
        raise InputError(
            f"`{path.parent}` was trained with `{config['model']}`, which is not from the zoo: pass a network of that "
            "class, with any weights, as in `eqxcnn.load(folder, model=net)`"
        )
    try:
        # Without this check, an entry such as `key` in `architecture` would set one of `build`'s own arguments.
        check_keywords(config["model"], architecture)
        return eqx.filter_eval_shape(
            build,
            config["model"],
            num_classes=len(config["class_names"]),
            in_channels=config["in_channels"],
            image_size=tuple(config["image_size"]),
            key=jax.random.key(0),
            **architecture,
        )
    except InputError as error:
        raise InputError(f"`{path}` does not describe a model: {error}") from error


def _load_tensors(path: Path, sha256: str | None) -> dict[str, np.ndarray]:
    """Loads the tensors of a file, and checks its digest unless `sha256` is `None`, as for older folders."""
    if sha256 is not None and digest_file(path) != sha256:
        raise InputError(
            f"`{path}` has changed since it was saved (its SHA-256 digest is not the one in config.json): restore it, "
            "or train again"
        )
    return load_safetensors(path)
