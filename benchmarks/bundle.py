"""`python -m benchmarks.bundle RECIPE RUN`: writes the weights of a finished run to eqxcnn/weights/bundled."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import numpy as np
import tyro
from jaxtyping import Int

from eqxcnn.cli import run_command
from eqxcnn.data import Split, open_source
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.saved_classifier import load
from eqxcnn.training import Evaluator, Scores, load_recipe
from eqxcnn.views import Views
from eqxcnn.weights import from_tensors, save_safetensors, to_tensors, write_text_atomically
from eqxcnn.weights.bundled import Bundled, ClassScores

from .results import make_record

FOLDER = Path(__file__).resolve().parents[1] / "eqxcnn" / "weights" / "bundled"

#: Networks with more parameters are stored in half precision.
_MAX_FLOAT32 = 500_000
#: The largest change of the accuracy by half precision.
_MAX_CHANGE = 0.001
#: Entries of a run's record that are copied into the record of the weights.
_TRAINING = (
    "command", "data_fingerprint", "epochs", "train_images_per_epoch", "train_seconds", "epoch_seconds_median",
    "wall_seconds", "environment",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Bundle the weights of a finished run of a shipped recipe, with their scores on the whole test split."""

    recipe: Annotated[str, tyro.conf.Positional]
    """The shipped recipe's name."""
    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: str | None = None
    """Path of the images; by default that of the run."""


def main(arguments: Sequence[str]) -> None:
    """Parses the options, tests the weights, writes the weights and their record, and prints a summary."""
    options = tyro.cli(Options, prog="python -m benchmarks.bundle", args=arguments)
    row = bundle(options.recipe, options.run, data=options.data, destination=FOLDER)
    print(f"{row.model}: {row.accuracy:.2%} ({row.one_view_accuracy:.2%} with one view), {row.dtype}")


def bundle(recipe: str, run: Path, *, data: str | None, destination: Path) -> Bundled:
    """Writes `MODEL.safetensors` and `MODEL.json`, and returns the record.

    **Raises:** `InputError` if the run is not finished, if its settings differ from those of the shipped recipe, if its
    `architecture` is not empty, or if half precision changes the accuracy by more than 0.001.
    """
    record, settings = make_record(recipe, run, allow_resumed=True), load_recipe(run / "recipe.yaml")
    if settings.architecture:
        raise InputError(f"`architecture` (={settings.architecture}) of `{run}` must be empty, as `pretrained` builds")
    dtype = "float16" if record["parameters"] > _MAX_FLOAT32 else "float32"
    trained = load(run)
    tensors = round_tensors(to_tensors(trained.model, trained.state), dtype)
    rounded = replace_tensors(trained, tensors)
    split = open_source(data or settings.data).decode("test", preprocess=trained.preprocess)
    scores, one_view = (evaluate(rounded, split, views) for views in (settings.test_views, "one"))
    if abs(scores.accuracy - record["test_accuracy"]) > _MAX_CHANGE:
        raise InputError(
            f"the weights in {dtype} have an accuracy of {scores.accuracy:.2%}, but the run `{run}` tested "
            f"{record['test_accuracy']:.2%}: store them in float32, or name the images that the run was tested on"
        )
    destination.mkdir(parents=True, exist_ok=True)
    row = Bundled(
        model=record["model"],
        parameters=record["parameters"],
        sha256=save_safetensors(destination / f"{record['model']}.safetensors", tensors, {"model": record["model"]}),
        dtype=dtype,
        preprocess=trained.preprocess,
        data=record["data"],
        recipe=recipe,
        seed=record["seed"],
        test_views=settings.test_views,
        accuracy=scores.accuracy,
        one_view_accuracy=one_view.accuracy,
        loss=round(scores.loss, 6),
        classes=score_classes(scores.confusion, trained.class_names),
        training={key: record[key] for key in _TRAINING if key in record},
    )
    write_text_atomically(destination / f"{row.model}.json", json.dumps(asdict(row), indent=2) + "\n")
    return row


def round_tensors(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Returns the tensors with kernels and matrices in `dtype`.

    Vectors stay in float32: they are small, and float16 cannot hold every running variance.
    """
    return {name: tensor.astype(dtype) if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def evaluate(classifier: ImageClassifier, split: Split, views: Views) -> Scores:
    """Returns the metrics of a classifier on decoded images, with predictions averaged over `views` of each image."""
    evaluator = Evaluator(classifier.mean, classifier.std, len(classifier.class_names), views=views)
    return evaluator(classifier.model, classifier.state, split.images, split.labels)


def score_classes(confusion: Int[np.ndarray, "k k"], names: Sequence[str]) -> tuple[ClassScores, ...]:
    """Returns the scores of each class, computed from the confusion matrix (rows: true classes)."""
    hits, actual, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)

    def part(of: Any, whole: Any) -> float:
        return round(float(of) / float(whole), 4) if whole else 0.0

    return tuple(
        ClassScores(name, part(hit, guessed), part(hit, true), part(2 * hit, true + guessed), int(true))
        for name, hit, true, guessed in zip(names, hits, actual, predicted, strict=True)
    )


def replace_tensors(classifier: ImageClassifier, tensors: dict[str, np.ndarray]) -> ImageClassifier:
    whole = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    model, state = from_tensors(classifier.model, classifier.state, whole)
    return replace(classifier, model=eqx.nn.inference_mode(model), state=state)


if __name__ == "__main__":
    run_command(main)
