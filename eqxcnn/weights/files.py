"""Safetensors and text files, written atomically."""

import json
import os
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..errors import InputError


def save_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes named arrays and metadata to a safetensors file; equal contents give equal bytes.

    **Raises:** `InputError` if the file cannot be written; an existing file is then left unchanged.
    """
    # The library copies raw memory, so it would write a transposed view in the wrong order.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    _replace(path, _with_metadata(safetensors.numpy.save(dense), metadata))


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a safetensors file.

    **Raises:** `InputError` if the file does not exist, is truncated or has another format.
    """
    try:
        path.open("rb").close()  # the library's message for a missing file is unclear
        return safetensors.numpy.load_file(path)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise InputError(f"`{path}` is not a complete safetensors file: {error}") from error


def write_text_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 text to a file.

    **Raises:** `InputError` if the file cannot be written; an existing file is then left unchanged.
    """
    _replace(path, text.encode())


def _with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """Adds sorted metadata to the bytes of a safetensors file; the library would write it in a varying order.

    Format: 8 bytes with the header's length, the JSON header, the data (https://huggingface.co/docs/safetensors).
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(file[8:end])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data to 8 bytes, as the format requires
    return len(text).to_bytes(8, "little") + text + file[end:]


def _replace(path: Path, data: bytes) -> None:
    """Replaces the file at `path` atomically, so that a reader never sees a partial file."""
    # A rename is atomic only within one file system; the process id separates concurrent writers.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from error
