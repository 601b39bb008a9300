"""Images: mutated files of every format that Pillow writes, files with hostile sizes, and renamed programs."""

import io
import random
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from eqxcnn.data import Preprocess, decode_image
from eqxcnn.data.headers import read_header
from eqxcnn.images.crops import RandomCrop
from eqxcnn.images.decode import decode_box

from .case import Entrance, Silent
from .mutate import mutate_bytes

#: Formats with checksums, so that damaged pixels must be refused.
_CHECKED = ("PNG",)


def make_images(folder: Path) -> list[tuple[str, bytes]]:
    """Returns encoded images with the names of their formats."""
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    frames = [Image.fromarray(rng.integers(0, 256, (9, 12), np.uint8)) for _ in range(20)]
    modes = {
        "PNG": ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P"),
        "BMP": ("L", "RGB", "1", "P"), "TIFF": ("L", "RGB", "CMYK", "I;16", "F"), "ICO": ("RGBA",), "PPM": ("L", "RGB"),
        "TGA": ("L", "RGB", "RGBA"), "WEBP": ("RGB", "RGBA"), "JPEG2000": ("RGB",), "AVIF": ("RGB",),
    }  # fmt: skip
    made = [
        (kind, _encode(_convert(color, mode), kind))
        for kind, listed in modes.items()
        for mode in listed
        if _is_known(kind)
    ]
    made += [("GIF", _encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))]
    made += [
        ("TIFF", _encode(color, "TIFF", compression=name)) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    ]
    made += [("TIFF", _encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))]
    made += [("JPEG", _encode(color, "JPEG", progressive=True, exif=_rotated()))]
    made += [("PNG", _encode(color, "PNG", exif=_rotated()))]
    made += [("WEBP", _encode(color, "WEBP", lossless=True, save_all=True, append_images=[color.rotate(180)]))]
    return made


def _is_known(kind: str) -> bool:
    name = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    return name is None or bool(features.check(name))


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def attack_image(rng: random.Random, folder: Path, images: list[tuple[str, bytes]]) -> None:
    """A decoded image must have the size in its header, and damage that a checksum detects must be refused."""
    kind, intact = rng.choice(images)
    is_bare = rng.random() < 0.15
    data = rng.choice(_HUGE)(rng) if is_bare else mutate_bytes(rng, intact)
    path = folder / f"case.{rng.choice((kind, 'png', 'jpg', 'eps'))}"
    path.write_bytes(data)
    channels = rng.choice((1, 3))
    size = rng.choice((None, (8, 8), (1, 40)))
    pixels = decode_image(rng.choice((path, str(path), data)), size, channels)
    own = decode_image(data, None, channels)
    _attack_preprocess(rng, data, channels)
    header = read_header({"bytes": data, "path": None})
    if pixels.dtype != np.uint8 or pixels.shape != (*(size or own.shape[:2]), channels):
        raise Silent(f"an image is decoded to another shape: {pixels.dtype}{pixels.shape}")
    if header is None or header[0] != own.shape[:2]:
        raise Silent(f"the header has another size than the image: {header} and {own.shape}")
    if not is_bare and kind in _CHECKED and not np.array_equal(own, decode_image(intact, None, channels)):
        raise Silent(f"a damaged {kind} file is decoded to other pixels")


def _attack_preprocess(rng: random.Random, data: bytes, channels: int) -> None:
    """Every accepted preprocessing and every random crop must give an image of the size of the preprocessing."""
    side = rng.choice((1, 2, 7, 33, 224))
    how = Preprocess(
        (side, rng.choice((1, side, 60))),
        channels,
        rng.choice(("stretch", "crop", "pad")),
        rng.choice((1.0, 0.1, 0.875, 224 / 236, rng.uniform(-0.5, 1.5))),
        rng.choice(("bilinear", "bicubic", "nearest")),
    )
    crop = RandomCrop((rng.uniform(0.01, 0.5), 1.0), (0.2, 5.0), 0)
    for pixels in (how(data), decode_box(data, channels, how.size, partial(crop.draw, 0, 0))):
        if pixels.dtype != np.uint8 or pixels.shape != (*how.size, channels):
            raise Silent(f"{how} made {pixels.dtype}{pixels.shape}")


def _huge_png(rng: random.Random) -> bytes:
    sides = [rng.choice((1, 9, 20_000, 100_000, 2**31 - 1, 2**32 - 1, 0)) for _ in range(2)]
    header = struct.pack(
        ">IIBBBBB", *sides, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, rng.choice((0, 1))
    )
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rng.choice((10, 50_000_000))))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _huge_text_chunk(rng: random.Random) -> bytes:
    data = b"a\0\0" + zlib.compress(bytes(rng.choice((1_000, 100_000_000))))
    png = _encode(Image.new("L", (4, 4)), "PNG")
    return (
        png[:33]
        + struct.pack(">I", len(data))
        + b"zTXt"
        + data
        + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        + png[33:]
    )


def _huge_ppm(rng: random.Random) -> bytes:
    sides = [rng.choice(("1", "30000", "99999999", "-1", "0", "9" * 4_000, "1e9")) for _ in range(2)]
    kind, most = (
        rng.choice(("P1", "P2", "P3", "P4", "P5", "P6", "Pf")),
        rng.choice(("255", "65535", "0", "-1", "9" * 50)),
    )
    return f"{kind} {' '.join(sides)} {most}\n".encode() + bytes(rng.randrange(400))


def _huge_gif(rng: random.Random) -> bytes:
    frame = (
        b"\x2c" + struct.pack("<HHHHB", *(rng.choice((0, 1, 65_535)) for _ in range(4)), 0) + b"\x02\x02\x44\x01\x00"
    )
    screen = struct.pack("<HHBBB", rng.choice((1, 65_535)), rng.choice((1, 65_535)), 0x80, 0, 0)
    return b"GIF89a" + screen + bytes(6) + frame * rng.choice((1, 3, 20_000)) + b"\x3b"


def _huge_bmp(rng: random.Random) -> bytes:
    sides = [rng.choice((1, -1, 30_000, 2**31 - 1, -(2**31))) for _ in range(2)]
    header = struct.pack(
        "<IiiHHIIiiII", 40, *sides, 1, rng.choice((1, 8, 24, 32)), rng.choice((0, 1, 2, 3)), 0, 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + header + rng.randbytes(rng.randrange(2_000))


def _huge_tiff(rng: random.Random) -> bytes:
    sides = (1, 30_000, 2**32 - 1)
    tags = {
        256: rng.choice(sides), 257: rng.choice(sides), 258: rng.choice((1, 8, 16, 32)),
        259: rng.choice((1, 5, 7, 8, 32_773)), 262: rng.choice((0, 1, 2, 3)), 273: 8, 277: rng.choice((1, 3, 200)),
        278: 9, 279: rng.choice((10, 2**31)), 274: rng.randrange(12),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    following = rng.choice((0, 8))  # 8 makes a loop of directories
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + bytes(64)


def _foreign(rng: random.Random) -> bytes:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n%%EOF\n"
    return rng.choice((
        postscript, b"", b"\0", b"<svg onload='x'/>", b"%PDF-1.7\n", b"\x7fELF" + bytes(99), b"PK\3\4" + bytes(40),
        b"#!/bin/sh\n", b"8BPS\0\1" + bytes(60), b"SIMPLE  =                    T" + b" " * 3_000, b"#FIG 3.2",
        b"\x89HDF\r\n\x1a\n" + bytes(99), rng.randbytes(500), b"\xff\xd8\xff" + rng.randbytes(300),
    ))  # fmt: skip


def damage_image(rng: random.Random, intact: bytes) -> bytes:
    """Returns a mutated image, or sometimes an image with a hostile size, or a file of another kind."""
    return rng.choice(_HUGE)(rng) if rng.random() < 0.15 else mutate_bytes(rng, intact)


_HUGE = (_huge_png, _huge_text_chunk, _huge_ppm, _huge_gif, _huge_bmp, _huge_tiff, _foreign)

ENTRANCES = {"image": Entrance(attack_image, make_images)}
