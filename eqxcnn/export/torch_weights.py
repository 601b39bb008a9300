"""Exports a classifier's weights under the parameter names of its twin, the same network in torchvision or timm."""

from pathlib import Path

import equinox as eqx
import numpy as np

from ..errors import InputError
from ..inference import ImageClassifier
from ..registry import families, variant
from ..weights import from_torch, load_safetensors, save_safetensors, to_torch
from .check import check_outputs, choose_images
from .metadata import as_strings, describe
from .program import DTYPES, Precision, Program
from .staging import check_target, stage

__all__ = ["export_torch_weights"]


def export_torch_weights(
    classifier: ImageClassifier,
    path: Path | str,
    *,
    precision: Precision = "float32",
    images: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a safetensors file with the `state_dict` of the model's torch twin, and the classifier's metadata.

    The metadata entry `torch_twin` is the name of the twin. The twin does not normalize: its input is
    `(pixels / 255 - mean) / std`, channels first. Before the file is moved to `path`, its weights are read back into
    a copy of the classifier's model, and the scores of the copy must agree with the classifier's.

    **Arguments:**

    - `path`: by convention, a name that ends with `.torch.safetensors`.
    - `precision`: the dtype of the stored weights.
    - `images`, `overwrite`: as for `export_stablehlo`.

    **Returns:** the largest difference between a logit of the export and the same logit of the classifier, divided by
        the classifier's largest absolute logit.

    **Raises:** `InputError` for an invalid argument, for a model without a twin, or if the difference is too large.
    """
    path, program = Path(path), Program(classifier, precision=precision)
    name = classifier.name
    twin = variant(name).torch_twin if name in families() else None
    if twin is None:
        raise InputError(
            f"`{name}` has no twin in torchvision or timm, so its weights have no names there: export it as stablehlo "
            "or onnx"
        )
    check_target(path, overwrite)
    examples = choose_images(classifier, images)
    tensors = to_torch(name, classifier.model, classifier.state)  # type: ignore[arg-type]
    stored = {name: tensor.astype(np.dtype(DTYPES[precision])) for name, tensor in tensors.items()}
    metadata = describe(program)
    metadata = {**{key: metadata[key] for key in metadata if key not in ("input", "outputs")}, "torch_twin": twin}
    with stage(path) as staged:
        save_safetensors(staged, stored, as_strings(metadata))
        written = _read(classifier, staged)
        return check_outputs(program, lambda pixels: np.asarray(written(pixels)), examples)


def _read(classifier: ImageClassifier, path: Path) -> ImageClassifier:
    """Returns the classifier with the weights from a file."""
    model, state = from_torch(
        classifier.name,
        load_safetensors(path),
        num_classes=len(classifier.class_names),
        in_channels=classifier.in_channels,
        image_size=classifier.image_size,
        **dict(classifier.architecture),
    )
    model = eqx.nn.inference_mode(model)
    return eqx.tree_at(lambda each: (each.model, each.state), classifier, (model, state))
