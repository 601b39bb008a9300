"""Exports a classifier as a StableHLO program, in a zip file that JAX alone can open and run."""

import importlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

__all__ = ["PLATFORMS", "export_stablehlo"]

#: The platforms that JAX can export for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
#: The earliest time that a zip file can contain: equal classifiers give equal files.
_TIME = (1980, 1, 1, 0, 0, 0)


def export_stablehlo(
    classifier: ImageClassifier,
    path: Path | str,
    *,
    batch: Batch = "dynamic",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    precision: Precision = "float32",
    outputs: Outputs = "logits",
    images: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a zip file with the program `uint8[b h w c] -> float32[b classes]` and its metadata.

    The weights are in the program. It is run on the first platform of `platforms` that this process has, and compared
    with the classifier, before the file is written. `load` reads the file; so does JAX alone:
    `jax.export.deserialize(bytearray(zipfile.ZipFile(path).read("program.bin")))`.

    **Arguments:**

    - `path`: by convention, a name that ends with `.stablehlo.zip`.
    - `batch`: the number of images of a call, or `"dynamic"`.
    - `platforms`: where the program can run, any of `PLATFORMS`.
    - `precision`: the dtype of weights and computation, `float32`, `bf16` or `float16`.
    - `outputs`: `logits` or `probabilities`.
    - `images`: a folder of images for the comparison, instead of random ones.
    - `overwrite`: whether an existing file is replaced.

    **Returns:** the largest difference between a logit of the export and the same logit of the classifier, divided by
        the classifier's largest absolute logit.

    **Raises:** `InputError` that names an invalid argument, or the difference if it is too large.
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
    """Leaves the paths of source files, which depend on the machine, out of programs."""
    before = getattr(jax.config, "jax_traceback_in_locations_limit", 10)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _check_platforms(platforms: Sequence[str]) -> None:
    if isinstance(platforms, str) or not platforms or len(set(platforms)) < len(platforms):
        raise InputError(f"`platforms` (={platforms!r}) must name each platform once: any of {', '.join(PLATFORMS)}")
    for platform in platforms:
        if platform not in PLATFORMS:
            raise InputError(f"`platforms` has `{platform}`, which is unknown: name any of {', '.join(PLATFORMS)}")
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
