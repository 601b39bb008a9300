"""Exports a classifier as a StableHLO program, in a zip file that runs with JAX and without eqxcnn."""

import importlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np

from ..errors import InputError
from ..inference import ImageClassifier
from .check import check_outputs, choose_images
from .loading import METADATA, PROGRAM, load
from .metadata import describe
from .program import Batch, Outputs, Precision, Program
from .staging import check_target, stage

__all__ = ["DEFAULT_PLATFORMS", "PLATFORMS", "export_stablehlo"]

#: The platforms that JAX can export for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")
#: The timestamp inside the zip file: the earliest that zip files support. It is fixed, so that equal classifiers give
#: equal files.
_TIME = (1980, 1, 1, 0, 0, 0)
#: JAX's option for the number of stack frames per operation.
_LOCATIONS = "jax_traceback_in_locations_limit"


def export_stablehlo(
    classifier: ImageClassifier,
    path: Path | str,
    *,
    batch: Batch = "dynamic",
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    precision: Precision = "float32",
    outputs: Outputs = "logits",
    images: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a zip file with the program `uint8[b h w c] -> float32[b classes]` and its metadata.

    The program contains the weights. Before the file is written, the program runs on JAX's default platform, and its
    scores are compared with the classifier's. `load` reads the file; without eqxcnn, use
    `jax.export.deserialize(bytearray(zipfile.ZipFile(path).read("program.bin")))`.

    **Arguments:**

    - `path`: by convention, a name that ends with `.stablehlo.zip`.
    - `batch`: the number of images per call, or `"dynamic"`.
    - `platforms`: the platforms of the program, any of `PLATFORMS`; JAX's default platform must be among them.
    - `precision`: the dtype of weights and computation, `float32`, `bf16` or `float16`.
    - `outputs`: `logits` or `probabilities`.
    - `images`: a folder of images for the comparison; by default, random images are used.
    - `overwrite`: whether to replace an existing file.

    **Returns:** the largest difference between a logit of the export and the same logit of the classifier, divided by
        the classifier's largest absolute logit.

    **Raises:** `InputError` for an invalid argument, or if the difference is too large.
    """
    path, program = Path(path), Program(classifier, batch, precision, outputs)
    _check_platforms(platforms)
    check_target(path, overwrite)
    _check_flatbuffers()
    examples = choose_images(classifier, images)
    with _without_locations():
        exported = jax.export.export(jax.jit(program.make_function()), platforms=tuple(platforms))(program.pixels)
    metadata = {**describe(program), "platforms": list(exported.platforms)}
    with stage(path) as staged:
        with zipfile.ZipFile(staged, "w") as file:
            for name, content in (
                (PROGRAM, bytes(exported.serialize())),
                (METADATA, json.dumps(metadata, indent=2, ensure_ascii=False).encode()),
            ):
                file.writestr(zipfile.ZipInfo(name, _TIME), content)
        written = load(staged)
        return check_outputs(program, lambda pixels: np.asarray(written(pixels)), examples)


@contextmanager
def _without_locations() -> Iterator[None]:
    """Omits the paths of source files, which depend on the machine, from programs that are exported in this context.

    Has no effect if JAX does not have the option `_LOCATIONS`.
    """
    before = getattr(jax.config, _LOCATIONS, 10)
    with suppress(AttributeError):
        jax.config.update(_LOCATIONS, 0)
    try:
        yield
    finally:
        with suppress(AttributeError):
            jax.config.update(_LOCATIONS, before)


def _check_platforms(platforms: Sequence[str]) -> None:
    if isinstance(platforms, str) or not platforms or len(set(platforms)) < len(platforms):
        raise InputError(
            f"`platforms` (={platforms!r}) must be a list of different platforms, any of {', '.join(PLATFORMS)}"
        )
    for platform in platforms:
        if platform not in PLATFORMS:
            raise InputError(f"`platforms` contains the unknown `{platform}`: choose any of {', '.join(PLATFORMS)}")
    here = jax.default_backend()
    own = {"gpu": ("cuda", "rocm")}.get(here, (here,))
    if not set(own) & set(platforms):
        raise InputError(
            f"`platforms` (={', '.join(platforms)}) must include the platform of this machine ({' or '.join(own)}), "
            "because the program is run before it is written"
        )


def _check_flatbuffers() -> None:
    try:
        importlib.import_module("flatbuffers")
    except ImportError:
        raise InputError(
            "exporting StableHLO needs the package `flatbuffers`: install it with `pip install 'eqxcnn[export]'`"
        ) from None
