"""`python -m eqxcnn.export`: writes a trained classifier as a file for another runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..cli import run_command
from ..errors import InputError, printable
from ..inference import ImageClassifier
from ..plugins import IMPORT_HELP, take_imports
from ..saved_classifier import load
from .program import MAX_BATCH, Batch, Outputs, Precision
from .stablehlo import DEFAULT_PLATFORMS, export_stablehlo
from .staging import check_target, file_stem
from .torch_weights import export_torch_weights

#: File name suffix of each format.
SUFFIXES = {"stablehlo": ".stablehlo.zip", "onnx": ".onnx", "safetensors-torch": ".torch.safetensors"}


@dataclass(frozen=True)
class Options:
    """Exports a trained classifier to a file for another runtime, if the file's scores agree with the classifier's."""

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder, its model folder, hub:user/name, or the name of a model with trained weights, such as lenet."""
    format: Literal["stablehlo", "onnx", "safetensors-torch"]
    """A StableHLO program for JAX, an ONNX model, or weights under the parameter names of torchvision or timm."""
    out: Path = Path(".")
    """Folder for the file, which is named after the model; created if it does not exist."""
    batch: str = "dynamic"
    """Images per call: a number, or dynamic for any number."""
    platforms: tuple[str, ...] = ()
    """Platforms of a StableHLO program: any of cpu, cuda, rocm and tpu; by default cpu, cuda and tpu."""
    precision: Precision = "float32"
    """Precision of the weights and the computation; with safetensors-torch, only of the stored weights."""
    outputs: Outputs = "logits"
    """The outputs of the exported model: scores before softmax (logits) or after it (probabilities)."""
    images: Path | None = None
    """Folder of images for the comparison; the first 32 images are used. By default, 32 random images."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite an existing file."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, loads the classifier, exports it, and prints the file and the measured difference."""
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.export", description=help_, args=arguments)
    batch = _parse_batch(options.batch)
    _check_flags(options)
    classifier = load(options.run)
    path = options.out / f"{file_stem(classifier.name)}{SUFFIXES[options.format]}"
    check_target(path, options.force)
    error = _export(options, classifier, path, batch)
    print(
        f"{printable(str(path), 4096)}: {path.stat().st_size:,} bytes; the logits differ by {error:.1e} of the largest"
    )


def _export(options: Options, classifier: ImageClassifier, path: Path, batch: Batch) -> float:
    match options.format:
        case "stablehlo":
            return export_stablehlo(
                classifier, path, batch=batch, platforms=options.platforms or DEFAULT_PLATFORMS,
                precision=options.precision, outputs=options.outputs, images=options.images, overwrite=options.force,
            )  # fmt: skip
        case "onnx":
            # Imported only for this format, because the ONNX converter needs private parts of JAX.
            from .onnx import export_onnx

            return export_onnx(
                classifier, path, batch=batch, precision=options.precision, outputs=options.outputs,
                images=options.images, overwrite=options.force,
            )  # fmt: skip
        case "safetensors-torch":
            return export_torch_weights(
                classifier, path, precision=options.precision, images=options.images, overwrite=options.force
            )


def _parse_batch(text: str) -> Batch:
    if text == "dynamic":
        return "dynamic"
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_BATCH):
        raise InputError(f"`--batch` (={text}) must be `dynamic`, or an integer from 1 to {MAX_BATCH:,}")
    return int(text)


def _check_flags(options: Options) -> None:
    """Raises an error for flags that would have no effect."""
    if options.platforms and options.format != "stablehlo":
        raise InputError(f"`--platforms` is only for `--format stablehlo`: omit it with `--format {options.format}`")
    for name, default in (("batch", "dynamic"), ("outputs", "logits")):
        if options.format == "safetensors-torch" and getattr(options, name) != default:
            raise InputError(
                f"`--{name}` has no effect on the weights that `--format safetensors-torch` saves: omit it"
            )


if __name__ == "__main__":
    run_command(main)
