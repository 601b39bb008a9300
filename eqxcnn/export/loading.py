"""Reads an exported StableHLO program; needs only JAX, NumPy and flatbuffers."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import numpy as np

from ..errors import InputError, show

if TYPE_CHECKING:
    from ..images import Preprocess
else:
    Preprocess = Any

__all__ = ["METADATA", "PROGRAM", "LoadedProgram", "load"]

#: The two files in the zip file.
PROGRAM, METADATA = "program.bin", "metadata.json"


class LoadedProgram:
    """An exported classifier: `program(pixels)` returns its scores.

    - `metadata`: the content of `metadata.json`.
    - `class_names`: the name of each class, in the order of the scores.
    - `outputs`: `logits` or `probabilities`.
    - `platforms`: the platforms of the program, such as `cpu` and `cuda`.
    - `input_shape`: the shape of the pixels, `(batch, h, w, c)`; `batch` is `None` if it is dynamic.
    """

    def __init__(self, exported: jax.export.Exported, metadata: dict[str, Any]):
        self.metadata = metadata
        self.class_names = tuple(metadata["class_names"])
        self.outputs = metadata["outputs"]
        self.platforms = exported.platforms
        batch, *image = metadata["input"]["shape"]
        self.input_shape = (batch if isinstance(batch, int) else None, *image)
        self._call = jax.jit(exported.call)

    def __call__(self, pixels: Any) -> jax.Array:
        """Returns the scores `[b classes]` of images `uint8[b h w c]`; the program normalizes the pixels itself.

        **Raises:** `InputError` for pixels of another shape or dtype.
        """
        shape, dtype = np.shape(pixels), getattr(pixels, "dtype", None)
        batch, *image = self.input_shape
        if dtype != np.uint8 or len(shape) != 4 or list(shape[1:]) != image or shape[0] not in (batch or shape[0], 0):
            expected = ("batch" if batch is None else batch, *image)
            raise InputError(
                f"`pixels` of shape {shape} and dtype {dtype} must have the shape ({', '.join(map(str, expected))}) "
                "and the dtype uint8"
            )
        if shape[0] == 0:
            raise InputError(f"`pixels` of shape {shape} has no images: give at least one")
        return self._call(pixels)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that turns an image file into pixels `[h w c]`. Needs Pillow and jaxtyping."""
        from ..images import Preprocess

        how: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.metadata["preprocess"].items()
        }
        return Preprocess(**how)


def load(path: Path | str) -> LoadedProgram:
    """Reads a file written by `export_stablehlo`.

    **Raises:** `InputError` if the file cannot be read, is damaged or has another format.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist()):
                raise zipfile.BadZipFile("its parts are compressed")
            program, metadata = file.read(PROGRAM), json.loads(file.read(METADATA))
    # `RuntimeError`: an encrypted part, or JSON that is nested too deep.
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, json.JSONDecodeError, RuntimeError) as error:
        raise InputError(
            f"`{path}` is not an exported program, or it is damaged ({error}): export the classifier again"
        ) from error
    except (OSError, ValueError) as error:  # `ValueError`: the path contains a null character
        raise InputError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}") from error
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if version != 1:
        raise InputError(f"`{path}` has format {show(version)}, but this version of eqxcnn reads only format 1")
    try:
        return LoadedProgram(jax.export.deserialize(bytearray(program)), metadata)
    except ImportError as error:
        raise InputError(f"reading `{path}` needs the package `flatbuffers`: `pip install flatbuffers`") from error
    except Exception as error:  # the errors of a damaged program have many types
        raise InputError(
            f"`{path}` cannot be read by jax {jax.__version__} ({type(error).__name__}: {error}): export the "
            "classifier again with this version"
        ) from error
