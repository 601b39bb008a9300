"""Safetensors and text files, written atomically."""

import hashlib
import json
import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..errors import InputError
from ..parsing import parse_json

__all__ = ["check_regular", "check_zip", "digest_file", "load_safetensors", "save_safetensors", "write_text_atomically"]

#: Enough for the weights and the optimizer state of the largest model.
_MAX_BYTES = 16_000_000_000
_MAX_HEADER = 16 << 20


def save_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Writes named arrays and metadata to a safetensors file, and returns the file's SHA-256 digest.

    Equal contents give equal bytes.

    **Raises:** `InputError` if the file cannot be written; an existing file is then left unchanged.
    """
    # safetensors copies raw memory, so it would write a transposed view in the wrong order.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    content = _with_metadata(safetensors.numpy.save(dense), metadata)
    _replace(path, content)
    return hashlib.sha256(content).hexdigest()


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a safetensors file.

    **Raises:** `InputError` if the file does not exist, is truncated or has a different format.
    """
    check_regular(path)
    try:
        path.open("rb").close()  # safetensors gives an unclear message for a file without read permission
        tensors = safetensors.numpy.load_file(path)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except (KeyError, AttributeError) as error:
        raise InputError(f"`{path}` has a tensor of a type that NumPy lacks ({error}): save it as float32") from error
    except (SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"`{path}` is not a complete safetensors file: {error}") from error
    # safetensors silently keeps the last of two tensors with the same name; `parse_json` refuses duplicate names.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise InputError(f"`{path}` has a header of {length} bytes: the limit is {_MAX_HEADER}")
        parse_json(file.read(length), f"the header of `{path}`")
    return tensors


def check_regular(path: Path) -> None:
    """Refuses a path that cannot be read to the end, such as a pipe or a device, and a file that would fill the memory.

    **Raises:** `InputError` unless the path is a regular file of at most 16 GB.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # the path contains a NUL character
        raise InputError(f"`{path}` cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"`{path}` is not a regular file: give a file with weights")
    if status.st_size > _MAX_BYTES:
        raise InputError(f"`{path}` has {status.st_size} bytes: the limit is {_MAX_BYTES}")


def check_zip(path: Path) -> None:
    """Verifies the checksums in a zip file, such as a file from `torch.save`, because torch itself ignores them.

    **Raises:** `InputError` if the file is damaged or compressed: torch never compresses, and a small compressed file
    can expand to any size. Files that are not zip files are accepted.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise InputError(f"`{path}` is compressed: unpack it, and save the weights again with `torch.save`")
            if sum(part.file_size for part in parts) > path.stat().st_size:
                raise InputError(f"`{path}` is damaged, because its parts overlap: get another copy of it")
            damaged = archive.testzip()
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"`{path}` is damaged ({error}): copy or download it again") from error
    if damaged is not None:
        raise InputError(f"`{path}` is damaged: the checksum of `{damaged}` is wrong; copy or download it again")


def digest_file(path: Path) -> str:
    """Returns the SHA-256 digest of a file.

    **Raises:** `InputError` if the path is not a regular file.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 text to a file.

    **Raises:** `InputError` if the file cannot be written; an existing file is then left unchanged.
    """
    _replace(path, text.encode())


def _with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """Adds metadata, sorted by key, to the bytes of a safetensors file; safetensors would write it in a varying order.

    Format: 8 bytes with the header's length, the JSON header, the data (https://huggingface.co/docs/safetensors).
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(file[8:end])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data to 8 bytes, as the format requires
    return len(text).to_bytes(8, "little") + text + file[end:]


def _replace(path: Path, data: bytes) -> None:
    """Replaces the file at `path` atomically, so that a reader never sees a partial file."""
    # A rename is atomic only within one file system; the process id keeps the files of concurrent writers apart.
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
