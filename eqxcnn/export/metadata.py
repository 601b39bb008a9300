"""The metadata in the file of an exported classifier."""

import json
from typing import Any

from .. import __version__
from ..saved_config import shortest
from .program import Program

__all__ = ["as_strings", "describe"]


def describe(program: Program) -> dict[str, Any]:
    """Returns the metadata of a file, as JSON values.

    - `format`: 1, the version of these fields.
    - `eqxcnn`: the version of the package.
    - `model`: the model's name.
    - `input`: the dtype and shape of the pixels, which the program normalizes.
    - `outputs`: `logits` or `probabilities`.
    - `precision`: the dtype of the computation.
    - `class_names`: the name of each class, in the order of the scores.
    - `preprocess`: the fields of `eqxcnn.images.Preprocess`.
    """
    classifier = program.classifier
    how = classifier.preprocess
    batch = "batch" if program.batch == "dynamic" else program.batch
    return {
        "format": 1,
        "eqxcnn": __version__,
        "model": classifier.name,
        "input": {"dtype": "uint8", "shape": [batch, *classifier.image_size, classifier.in_channels]},
        "outputs": program.outputs,
        "precision": program.precision,
        "class_names": list(classifier.class_names),
        "preprocess": {
            "size": list(how.size),
            "channels": how.channels,
            "resize": how.resize,
            "crop_fraction": how.crop_fraction,
            "interpolation": how.interpolation,
            "mean": shortest(classifier.mean),
            "std": shortest(classifier.std),
        },
    }


def as_strings(metadata: dict[str, Any]) -> dict[str, str]:
    """Returns the metadata as strings, for formats that store only strings; values of other types become JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in metadata.items()
    }
