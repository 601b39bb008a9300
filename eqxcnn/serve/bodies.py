"""Extracts the encoded images from the body of a request: raw bytes, a form with files, or JSON."""

import base64
import binascii
from collections.abc import AsyncIterable

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ..errors import InputError
from ..parsing import parse_json

__all__ = ["TooLarge", "read_body", "split_body"]


class TooLarge(Exception):
    """The body is too large or has too many images; the message is one sentence."""


async def read_body(stream: AsyncIterable[bytes], declared: str | None, max_bytes: int) -> bytes:
    """Returns the whole body.

    **Arguments:**

    - `declared`: the `Content-Length` header, if there is one.

    **Raises:** `TooLarge` as soon as the body is known to exceed `max_bytes`.
    """
    sentence = f"the body has more than {max_bytes:,} bytes: send fewer or smaller images in one request"
    if declared is not None and declared.isdecimal() and int(declared) > max_bytes:
        raise TooLarge(sentence)
    chunks, size = [], 0
    async for chunk in stream:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(sentence)
        chunks.append(chunk)
    return b"".join(chunks)


def split_body(body: bytes, content_type: str, max_images: int) -> list[bytes]:
    """Returns the encoded images of a body, at least one.

    A form (`multipart/form-data`) and JSON (`application/json`, in base64) can hold several images; a body of any other
    type is one image file.

    **Raises:** `InputError` for a body without an image, an invalid form or invalid JSON; `TooLarge` for more than
        `max_images`.
    """
    kind, parameters = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind == b"multipart/form-data":
        images = _split_form(body, parameters.get(b"boundary", b""), max_images)
    elif kind == b"application/json":
        images = _split_json(body)
    else:
        images = [body] if body else []
    if not images:
        raise InputError(
            "the request has no image: send the bytes of an image file, a form with files, or JSON such as "
            '`{"images": ["<base64>"]}`'
        )
    if len(images) > max_images:
        raise TooLarge(f"the request has {len(images):,} images: send at most {max_images:,} at once")
    return images


def _split_form(body: bytes, boundary: bytes, max_images: int) -> list[bytes]:
    """Returns the content of each part of a form."""
    parts: list[list[bytes]] = []
    ends: list[bool] = []

    def begin() -> None:
        # The limit is checked while the form is parsed, because a body can contain millions of empty parts.
        if len(parts) == max_images:
            raise TooLarge(f"the form has more than {max_images:,} parts: send at most {max_images:,} images at once")
        parts.append([])

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_part_data": lambda data, start, end: parts[-1].append(data[start:end]),
                "on_end": lambda: ends.append(True),
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InputError("the form is not valid `multipart/form-data`: send it as `curl -F` does") from error
    if body and not ends:
        raise InputError("the form ends before its last boundary: send it as `curl -F` does")
    return [b"".join(part) for part in parts]


def _split_json(body: bytes) -> list[bytes]:
    entries = parse_json(body, "the body")
    images = entries.get("images") if isinstance(entries, dict) and set(entries) == {"images"} else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise InputError('the body must be a JSON object with one key, as in `{"images": ["<base64>", ...]}`')
    return [_decode_base64(image, number, len(images)) for number, image in enumerate(images, 1)]


def _decode_base64(text: str, number: int, count: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # `ValueError`: the text has a character that is not ASCII
        raise InputError(f"image {number} of {count} is not base64: encode the bytes of the image file") from error
