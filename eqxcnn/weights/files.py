"""Files that are either whole or not there: safetensors and text."""

import json
import os
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..errors import InputError


def save_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes named arrays and text about them to a safetensors file; equal contents give equal bytes.

    **Raises:** `InputError` when the file cannot be written; a file that was there before is then still there.
    """
    # The library copies raw memory, so a transposed view would be written in the wrong order.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    _replace(path, _with_metadata(safetensors.numpy.save(dense), metadata))


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a safetensors file.

    **Raises:** `InputError` when there is no such file, or it is cut off or of another format.
    """
    try:
        path.open("rb").close()  # the library words these errors badly
        return safetensors.numpy.load_file(path)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise InputError(f"`{path}` is no safetensors file, or only a part of one: {error}") from error


def write_text_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 text to a file.

    **Raises:** `InputError` when the file cannot be written; a file that was there before is then still there.
    """
    _replace(path, text.encode())


def _with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata in sorted order; the library itself writes it in an order that varies.

    Format: 8 bytes with the header's length, the JSON header, the data (https://huggingface.co/docs/safetensors).
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(file[8:end])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format keeps the data aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + file[end:]


def _replace(path: Path, data: bytes) -> None:
    """Puts a file with `data` at `path` in one step, so that a reader never finds half of it."""
    # A rename is in one step only within a folder; the process id keeps two writers apart.
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
