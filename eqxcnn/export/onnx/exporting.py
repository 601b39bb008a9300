"""Exports a classifier as an ONNX model."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...inference import ImageClassifier
from ..check import check_outputs, choose_images
from ..metadata import as_strings, describe
from ..program import Batch, Outputs, Precision, Program
from ..staging import check_target, stage
from .converting import convert
from .graph import INPUT, Unsupported

__all__ = ["export_onnx"]


def export_onnx(
    classifier: ImageClassifier,
    path: Path | str,
    *,
    batch: Batch = "dynamic",
    precision: Precision = "float32",
    outputs: Outputs = "logits",
    images: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes an ONNX model with the input `pixels`, `uint8[b h w c]`, and the output `logits` or `probabilities`.

    The model normalizes the pixels itself. Its metadata has the class names and the preprocessing. Before the file is
    written, onnxruntime runs the model, and its scores are compared with the classifier's. Weights of more than about
    two gigabytes are written to a second file beside the first, `NAME.onnx.data`.

    **Arguments:**

    - `path`: by convention, a name that ends with `.onnx`.
    - `precision`: `float32` or `float16`; onnxruntime has no convolutions in `bf16`.
    - `batch`, `outputs`, `images`, `overwrite`: as for `export_stablehlo`.

    **Returns:** the largest difference between a logit of the export and the same logit of the classifier, divided by
        the classifier's largest absolute logit.

    **Raises:** `InputError` for an invalid argument, for an operation without a conversion, if a package is missing, or
        if the difference is too large.
    """
    path, program = Path(path), Program(classifier, batch, precision, outputs)
    if precision == "bf16":
        raise InputError("`precision` (=bf16) must be float32 or float16: onnxruntime has no convolutions in bf16")
    check_target(path, overwrite)
    runtime = _import_packages()
    # Imported after `_import_packages`, because `writing` imports the optional package `onnx`.
    from .writing import write_model

    examples = choose_images(classifier, images)
    try:
        # A fixed batch size is traced as a symbol too, because a batch axis of length 1 would look like any other axis
        # of length 1. The file is written with the fixed size.
        graph, result = convert(program.make_function(), replace(program, batch="dynamic").pixels)
    except Unsupported as error:
        raise InputError(f"`{classifier.name}` {error}: export it as stablehlo") from error
    with stage(path) as staged:
        write_model(graph, result, program, as_strings(describe(program)), staged)
        session = runtime.InferenceSession(str(staged), providers=["CPUExecutionProvider"])
        return check_outputs(program, lambda pixels: np.asarray(session.run(None, {INPUT: pixels})[0]), examples)


def _import_packages() -> Any:
    """Returns the module `onnxruntime`; checks that `onnx` is installed too."""
    for name in ("onnx", "onnxruntime"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"exporting ONNX needs the package `{name}`: install it with `pip install 'eqxcnn[onnx]'`"
            ) from None
    return module
