"""The limits of the service."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What one request, and all requests together, may take.

    - `max_batch`: the largest number of images that the network classifies at once.
    - `max_pixels`: the largest number of pixels of an image, checked before it is decoded.
    - `max_bytes`: the largest body of a request.
    - `queue`: the largest number of requests in work, and of decoded images that wait for the network.
    - `timeout`: seconds until a request is answered with an error.
    """

    max_batch: int = 32
    max_pixels: int = 16_000_000
    max_bytes: int = 16_000_000
    queue: int = 256
    timeout: float = 30.0
