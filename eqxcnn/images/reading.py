"""The bytes of one file, with limits on its kind and size."""

import os
import stat
from pathlib import Path

__all__ = ["read_file"]

#: Limit on the size of a file; larger than an uncompressed image with the largest allowed number of pixels.
_MAX_BYTES = 512 << 20


def read_file(path: str | Path) -> bytes:
    """Returns the content of a regular file of at most 512 MiB.

    **Raises:** `ValueError` for a pipe, a device, a folder, a file above the limit, or a NUL in the path; `OSError` if
    the file cannot be read.
    """
    # Reading a pipe would block, and a device may never end.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > _MAX_BYTES:
        raise ValueError(f"it has {status.st_size:,} bytes, but the limit is {_MAX_BYTES:,}")
    return Path(path).read_bytes()
