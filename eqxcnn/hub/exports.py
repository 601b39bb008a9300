"""Exports a model for other runtimes; `push` can upload the exported files with the model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, show
from ..export import export_onnx, export_stablehlo
from .trained import Trained

__all__ = ["EXPORTS", "EXPORT_FILES", "check_exports", "describe_exports", "write_exports"]

#: Maps each format to the name of its file in the repository.
EXPORTS = {"stablehlo": "model.stablehlo.zip", "onnx": "model.onnx"}
#: All files of all formats; an ONNX model of more than two gigabytes has its weights in a second file.
EXPORT_FILES = (*EXPORTS.values(), "model.onnx.data")
_WRITE: dict[str, Callable[..., Any]] = {"stablehlo": export_stablehlo, "onnx": export_onnx}
_RUNTIMES = {"stablehlo": "JAX alone, on a CPU, GPU or TPU", "onnx": "ONNX Runtime"}


def check_exports(exports: Sequence[str]) -> None:
    """**Raises:** `InputError` if `exports` names a format that is not in `EXPORTS`, or names a format twice."""
    if isinstance(exports, str) or not set(exports) <= set(EXPORTS) or len(set(exports)) < len(exports):
        formats = " and ".join(EXPORTS)
        raise InputError(f"`exports` (={show(exports)}) must be a list of formats among {formats}, each at most once")


def write_exports(trained: Trained, exports: Sequence[str], folder: Path) -> dict[str, Path]:
    """Writes a classifier in each format to an empty folder, and returns the files by their names in the repository.

    **Raises:** `InputError` if the network is not from the zoo, if a package is missing, or if the scores of an export
        differ from the classifier's.
    """
    if exports and trained.classifier is None:
        raise InputError(
            f"`{trained.config['model']}` is not from the zoo, so `push` cannot export it: leave `exports` out, and "
            "export the classifier with `eqxcnn.export` in Python"
        )
    for name in exports:
        _WRITE[name](trained.classifier, folder / EXPORTS[name])
    return {name: folder / name for name in EXPORT_FILES if (folder / name).exists()}


def describe_exports(exports: Sequence[str]) -> str:
    """Returns the section of the model card about the exported formats; empty if there are none."""
    if not exports:
        return ""
    rows = [f"| `{EXPORTS[name]}` | {_RUNTIMES[name]} |" for name in exports]
    return (
        "## Other runtimes\n\nThese files take pixels `uint8[b h w c]`, normalize them, and return the scores before "
        "softmax. Class names and preprocessing are in their metadata.\n\n"
        + "\n".join(["| file | runs with |", "| --- | --- |", *rows])
        + "\n"
    )
