"""The limits of the service."""

from dataclasses import dataclass
from typing import Annotated

from ..ranges import Range

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits on one request, and on all requests together. The field descriptions are also the help texts of the
    flags."""

    max_batch: Annotated[int, Range(1, 4096)] = 32
    """Largest number of images that the model classifies at once. Programs are compiled for batches of 1, 2, 4 and so
    on, up to the first power of two that is at least this number."""
    max_pixels: Annotated[int, Range(1, 10**9)] = 16_000_000
    """Largest number of pixels of an image; checked before the image is decoded."""
    max_bytes: Annotated[int, Range(1, 10**9)] = 16_000_000
    """Largest number of bytes in the body of a request."""
    queue: Annotated[int, Range(1, 10**6)] = 256
    """Largest number of requests in progress, and also of decoded images that wait for the model; a request beyond
    either limit is refused with status 503."""
    timeout: Annotated[float, Range(0, 3600, excludes_low=True)] = 30.0
    """Time limit for each request, in seconds. A request that exceeds it is answered with an error. If the body
    of the request is incomplete, the error may take up to twice this time. After SIGTERM, the requests in progress have
    this time to finish."""
