"""Request bodies: damaged images (as raw bytes, in forms and in JSON), damaged forms, and damaged JSON."""

import base64
import json
import random
from pathlib import Path

from eqxcnn.errors import InputError
from eqxcnn.serve.bodies import TooLarge, split_body

from .case import Entrance
from .images import damage_image, make_images
from .mutate import HOSTILE, mutate_bytes, mutate_value

_MOST = 20
_HEAD = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n'


def make_hostile_body(rng: random.Random, images: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Returns a content type and a body of one or several images; the type, the body and the images may be damaged."""
    files = [damage_image(rng, rng.choice(images)[1]) for _ in range(rng.choice((1, 1, 2, 5, 30)))]
    kind = rng.choice(("raw", "form", "form", "json", "json"))
    if kind == "raw":
        return rng.choice(("image/png", "text/html", "", "\x80", "multipart/mixed; boundary=b")), files[0]
    if kind == "form":
        body = b"".join(b"--b\r\n" + _HEAD + b"\r\n" + data + b"\r\n" for data in files) + b"--b--\r\n"
        boundary = rng.choice(("b", "b", "b", '"b"', "", "b; boundary=c", "x" * 3_000, "\\"))
        content_type = f"multipart/form-data; boundary={boundary}"
    else:
        value = {"images": [base64.b64encode(data).decode() for data in files]}
        value = mutate_value(rng, value) if rng.random() < 0.5 else value
        body = json.dumps(value, default=str).encode("utf-8", "surrogatepass")
        content_type = rng.choice(("application/json", "application/json", "APPLICATION/JSON; charset=utf-16"))
    if rng.random() < 0.2:
        body = b"[" * rng.choice((10, 100_000)) + str(rng.choice(HOSTILE))[:100].encode("utf-8", "replace")
    return content_type, mutate_bytes(rng, body) if rng.random() < 0.5 else body


def attack_body(rng: random.Random, folder: Path, images: list[tuple[str, bytes]]) -> None:
    """Every body must either be split into the bytes of its images or be refused."""
    content_type, body = make_hostile_body(rng, images)
    (folder / "type.txt").write_text(content_type, encoding="utf-8")
    (folder / "body").write_bytes(body)
    try:
        found = split_body(body, content_type, _MOST)
    except TooLarge as error:
        raise InputError(str(error)) from error
    assert 1 <= len(found) <= _MOST
    assert all(isinstance(each, bytes) for each in found)


ENTRANCES = {"body": Entrance(attack_body, make_images)}
