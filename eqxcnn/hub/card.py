"""The model card of a trained classifier: the `README.md` of its repository on the Hub."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cost import count_parameters
from ..data.sources import SOURCES
from ..errors import InputError, printable, show
from ..hub_models import HubAddress
from ..recipe import OWN, Recipe
from ..registry import family
from ..saved_config import preprocess_of
from .exports import check_exports, describe_exports
from .trained import Trained, open_trained

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["build_card", "check_license", "describe_data", "make_card"]

_TASK = "image-classification"
_MAX_CLASSES = 100
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,49}")
#: The settings that a card shows; `recipe.yaml` contains all of them.
_SETTINGS = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "augment", "precision", "seed")


def make_card(run: Path | str, repository: str, *, license: str | None = None, exports: Sequence[str] = ()) -> str:
    """Returns the model card that `push` uploads, as Markdown with metadata.

    **Arguments:** as for `push`.

    **Raises:** `InputError` as for `push`.
    """
    check_exports(exports)
    with open_trained(run) as trained:
        return build_card(trained, HubAddress(repository), license or trained.license, exports)


def check_license(license: str | None) -> None:
    """**Raises:** `InputError` unless `license` can be a license's identifier on the Hub."""
    if license is not None and not _LICENSE.fullmatch(license):
        raise InputError(f"`license` (={show(license)}) must be an identifier of the Hub, such as apache-2.0 or mit")


def build_card(trained: Trained, address: HubAddress, license: str | None, exports: Sequence[str] = ()) -> str:
    """Returns the card of a classifier for its repository on the Hub."""
    from huggingface_hub import ModelCard, ModelCardData

    check_license(license)
    name, repository = describe_data(trained.recipe)
    results = _eval_results(trained, name, repository)
    data = ModelCardData(
        library_name="eqxcnn",
        license=license,
        pipeline_tag=_TASK,
        tags=[_TASK, "jax", "equinox", "eqxcnn"],
        datasets=[repository] if repository else None,
        metrics=["accuracy"] if results else None,
        model_name=address.repository.partition("/")[2] if results else None,
        eval_results=results or None,
    )
    sections = (
        _introduction(trained, name),
        _use(trained, address),
        describe_exports(exports),
        _accuracy(trained, name),
        _data(trained, name, repository),
        _preprocessing(trained),
        _training(trained),
        _license(license),
        _limits(name),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(filter(None, sections))))


def describe_data(recipe: Recipe | None) -> tuple[str, str | None]:
    """Returns the name of the training data, without a local path, and the Hub repository of the data, if any."""
    if recipe is None or recipe.data == OWN:
        return "", None
    if recipe.data in SOURCES:
        return recipe.data, SOURCES[recipe.data].hub
    # A folder is recorded by its absolute path, and a Hub repository by its name, perhaps with `:configuration`.
    if os.path.isabs(recipe.data) or recipe.data.startswith((".", "~")) or os.path.exists(recipe.data):
        return Path(recipe.data).name, None
    return recipe.data, recipe.data.partition(":")[0] if "/" in recipe.data else None


def _eval_results(trained: Trained, name: str, repository: str | None) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    if not math.isfinite(trained.scores.get("accuracy", math.nan)):
        return []
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=repository or name or OWN,
            dataset_name=name or OWN,
            metric_type="accuracy",
            metric_value=trained.scores["accuracy"],
        )
    ]


def _introduction(trained: Trained, name: str) -> str:
    model = trained.config["model"].rpartition(".")[2]
    classes = len(trained.config["class_names"])
    size = f" It has {count_parameters(trained.classifier.model):,} parameters." if trained.classifier else ""
    return (
        f"# {_plain(model)}{f' trained on {_plain(name)}' if name else ''}\n\n"
        f"{_code(model)} classifies an image as one of {classes:,} classes. It was trained with the Python package "
        f"`eqxcnn`, on [JAX](https://docs.jax.dev) and [Equinox](https://docs.kidger.site/equinox).{size}\n"
    )


def _use(trained: Trained, address: HubAddress) -> str:
    own = ", model=net" if trained.classifier is None else ""
    text = (
        "## Use\n\n```python\nimport eqxcnn\n\n"
        f'classifier = eqxcnn.load("{address}"{own})\n'
        'classifier.top_k(classifier.prepare("image.png"), k=3)  # class names and their probabilities\n```\n'
    )
    if own:
        return f"{text}\n`net` is a {_code(trained.config['model'])} of the same structure, with any weights.\n"
    if "/" in family(trained.config["model"]):  # The model comes from another package.
        text += "\nThe network is not part of `eqxcnn`: import the module that registers it first.\n"
    return (
        f"{text}\nOn the command line:\n\n```bash\npython -m eqxcnn.predict {address} image.png\n```\n\n"
        f"Append `@` and a commit hash to the address to load the same weights after later pushes, too.\n"
    )


def _accuracy(trained: Trained, name: str) -> str:
    scores = {key: value for key, value in trained.scores.items() if key != "count" and math.isfinite(value)}
    if not scores:
        return "## Accuracy\n\nNo test is recorded.\n"
    count = trained.scores.get("count")
    rows = [f"| {_plain(key)} | {_format_score(key, value)} |" for key, value in scores.items()]
    recipe, notes = trained.recipe, ""
    if recipe is not None and recipe.test_views != "one":
        notes += f" The scores are averaged over the views {_code(recipe.test_views)} of each image."
    if recipe is not None and recipe.validation == "test":
        notes += " The same images were also used to measure progress during training."
    images = f"{count:,} images" if count is not None else "the images"
    where = f" of {_code(name)}" if name else ""
    return (
        f"## Accuracy\n\nMeasured on {images} of the test split{where}, after training.{notes}\n\n"
        + "\n".join(["| metric | value |", "| --- | --- |", *rows])
        + "\n"
    )


def _format_score(key: str, value: float) -> str:
    return f"{value:.2%}" if key == "accuracy" else f"{value:.4f}"


def _data(trained: Trained, name: str, repository: str | None) -> str:
    names = trained.config["class_names"]
    shown = ", ".join(map(_code, names[:_MAX_CLASSES]))
    more = f", and {len(names) - _MAX_CLASSES:,} more in `config.json`" if len(names) > _MAX_CLASSES else ""
    page = f"[{_plain(name)}](https://huggingface.co/datasets/{repository})" if repository else _code(name)
    source = f"Trained on {page}.\n\n" if name else "The training data are not recorded.\n\n"
    return f"## Data\n\n{source}Classes, in the order of the scores: {shown}{more}.\n"


def _preprocessing(trained: Trained) -> str:
    how = preprocess_of(dict(trained.config))
    rows = {
        "size": f"{how.size[0]} x {how.size[1]} pixels",
        "channels": f"{how.channels} ({'gray' if how.channels == 1 else 'RGB' if how.channels == 3 else 'other'})",
        "resizing": f"{how.resize}, crop fraction {how.crop_fraction:g}, {how.interpolation}",
        "mean": _numbers(how.mean),
        "standard deviation": _numbers(how.std),
    }
    table = "\n".join(["| step | value |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())])
    return (
        "## Preprocessing\n\n`classifier.prepare` resizes an image, and the classifier normalizes its pixels, scaled "
        f"to [0, 1]:\n\n{table}\n"
    )


def _numbers(values: Any) -> str:
    return " ".join(f"{value:g}" for value in values)


def _training(trained: Trained) -> str:
    if trained.recipe is None:
        return "## Training\n\nThe recipe is not recorded.\n"
    settings = {name: getattr(trained.recipe, name) for name in _SETTINGS}
    rows = [f"| `{name}` | {_code(_format_setting(value))} |" for name, value in settings.items()]
    known = {name: trained.environment.get(name) for name in ("eqxcnn", "python", "jax", "equinox", "optax")}
    versions = ", ".join(f"{name} {_plain(str(version))}" for name, version in known.items() if version)
    return (
        "## Training\n\n`recipe.yaml` holds all settings; `python -m eqxcnn.train --recipe recipe.yaml` repeats the "
        "run.\n\n"
        + "\n".join(["| setting | value |", "| --- | --- |", *rows])
        + (f"\n\nVersions: {versions}.\n" if versions else "\n")
    )


def _format_setting(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _license(license: str | None) -> str:
    text = f"{_code(license)}." if license else "The author has not stated a license."
    return f"## License\n\n{text} The license of the training data may restrict the use of the weights too.\n"


def _limits(name: str) -> str:
    like = f"those of {_code(name)}" if name else "the training images"
    return (
        f"## Limits\n\nThe accuracy holds for images like {like}. Every image is assigned to one of the classes, even "
        "if it shows none of them. Probabilities are softmax scores and may not be calibrated. The classifier was not "
        "tested for fairness or for robustness to adversarial images.\n"
    )


def _plain(text: str) -> str:
    """Escapes characters that Markdown or HTML would interpret."""
    return re.sub(r"([\\`*\[\]<>|#&])", r"\\\1", printable(text))


def _code(text: str) -> str:
    """Formats text as inline code for a table cell."""
    return "`" + printable(text).replace("`", "'").replace("|", "/") + "`"
