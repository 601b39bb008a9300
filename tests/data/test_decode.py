"""Image files of every kind decode to the right pixels; unreadable files are reported."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import Preprocess, decode, decode_image
from eqxcnn.data.headers import read_header
from eqxcnn.errors import InputError


def encoded(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def one_pixel(mode, value) -> Image.Image:
    return Image.new(mode, (1, 1), value)


def palette(index, **options) -> bytes:
    image = Image.new("P", (1, 1), index)
    image.putpalette([10, 20, 30, 200, 100, 50])
    return encoded(image, **options)


def gray16(value) -> Image.Image:
    return Image.fromarray(np.array([[value]], np.uint16))


@pytest.mark.parametrize(
    ("file", "gray", "rgb"),
    [
        (encoded(one_pixel("1", 1)), 255, (255, 255, 255)),
        (encoded(one_pixel("1", 0)), 0, (0, 0, 0)),
        (encoded(one_pixel("L", 77)), 77, (77, 77, 77)),
        # ITU-R 601 luma: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
        (encoded(one_pixel("RGB", (200, 100, 50))), 124, (200, 100, 50)),
        (palette(1), 124, (200, 100, 50)),
        (palette(1, transparency=1), 255, (255, 255, 255)),
        (palette(1, transparency=0), 124, (200, 100, 50)),
        # Over white: 100 * 51/255 + 255 * 204/255 = 224.
        (encoded(one_pixel("LA", (100, 51))), 224, (224, 224, 224)),
        (encoded(one_pixel("RGBA", (200, 100, 50, 0))), 255, (255, 255, 255)),
        (encoded(one_pixel("RGBA", (200, 100, 50, 255))), 124, (200, 100, 50)),
        (encoded(one_pixel("RGBA", (0, 100, 200, 51))), 220, (204, 224, 244)),
        (encoded(one_pixel("RGB", (1, 2, 3)), transparency=(1, 2, 3)), 255, (255, 255, 255)),
        (encoded(one_pixel("CMYK", (0, 0, 0, 0)), "TIFF"), 255, (255, 255, 255)),
        (encoded(one_pixel("CMYK", (255, 0, 0, 0)), "TIFF"), 179, (0, 255, 255)),
        # 16-bit: 65535 is white, 257 * 128 is 128; nothing is clipped.
        (encoded(gray16(65535)), 255, (255, 255, 255)),
        (encoded(gray16(257 * 128)), 128, (128, 128, 128)),
        (encoded(gray16(200)), 1, (1, 1, 1)),
        (encoded(gray16(65535), "TIFF"), 255, (255, 255, 255)),
        (encoded(one_pixel("I", 257 * 90), "TIFF"), 90, (90, 90, 90)),
        (encoded(one_pixel("I", 90), "TIFF"), 90, (90, 90, 90)),
        (encoded(one_pixel("I", 255), "TIFF"), 255, (255, 255, 255)),
        (encoded(one_pixel("I", 256), "TIFF"), 1, (1, 1, 1)),
        (encoded(one_pixel("F", 0.2), "TIFF"), 51, (51, 51, 51)),
        (encoded(one_pixel("F", 1.0), "TIFF"), 255, (255, 255, 255)),
        (encoded(one_pixel("F", 51.2), "TIFF"), 51, (51, 51, 51)),
    ],
)
def test_every_mode_decodes_to_its_color(file, gray, rgb):
    assert decode_image(file, None, 1).tolist() == [[[gray]]]
    assert decode_image(file, None, 3).tolist() == [[list(rgb)]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(kind):
    # 6: the image must be turned 90 degrees clockwise to be upright.
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    options = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    file = encoded(Image.fromarray(pixels), kind, exif=exif, **options)
    upright = decode_image(file, None, 1)[..., 0].astype(int)
    assert upright.shape == (32, 16)
    assert upright[:16].min() > 250
    assert upright[16:].max() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_decode_to_the_same_image(orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # The stored pixels for each value (EXIF 2.3, table of tag 274).
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert decode_image(file, None, 1)[..., 0].tolist() == upright.tolist()


@pytest.mark.parametrize("orientation", [0, 9, 112, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.new("L", (6, 4)), "JPEG", exif=exif)
    assert decode_image(file, None, 1).shape == (4, 6, 1)
    assert read_header({"bytes": file, "path": None}) == ((4, 6), True)


def test_resize_is_antialiased_and_uncropped():
    # Alternating columns of 0 and 255: without antialiasing, a quarter of the width would keep single columns.
    stripes = np.tile(np.array([0, 255], np.uint8), (8, 32))
    small = decode_image(encoded(Image.fromarray(stripes)), (8, 16), 1)
    assert small.shape == (8, 16, 1)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 1
    # A triangle two new pixels wide: the left pixel averages 22.5 parts of 0 and 3.75 parts of 100.
    left_to_right = np.repeat(np.array([[0, 100, 200]], np.uint8), 30, axis=1)
    assert decode_image(encoded(Image.fromarray(left_to_right)), (1, 3), 1)[0, :, 0].tolist() == [14, 100, 186]


def test_a_source_is_bytes_a_path_or_an_image(tmp_path):
    image = Image.new("RGB", (4, 2), (9, 8, 7))
    image.save(tmp_path / "x.png")
    expected = np.full((2, 4, 3), (9, 8, 7), np.uint8)
    for source in (image, tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()):
        out = decode_image(source, (2, 4), 3)
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, expected)
        out[:] = 0  # A copy, which the caller may change.
    assert image.getpixel((0, 0)) == (9, 8, 7)


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("L", (2, 2), value) for value in (50, 200)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(file, None, 1).ravel().tolist() == [50] * 4


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "not an image in a known format"),
        (b"hello, I am a text", "not an image in a known format"),
        (encoded(Image.effect_noise((64, 64), 50))[:900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "truncated"),
        (encoded(one_pixel("I", 70000), "TIFF"), "not within 0 to 65535"),
        (encoded(one_pixel("I", -1), "TIFF"), "not within 0 to 255"),
        (encoded(one_pixel("F", float("nan")), "TIFF"), "not within 0 to 255"),
    ],
)
def test_an_unreadable_file_is_reported_in_one_sentence(file, reason):
    with pytest.raises(InputError, match=reason) as caught:
        decode_image(file, (8, 8), 3)
    assert "\n" not in str(caught.value)
    assert "object at" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_missing_file_and_wrong_channels_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"none\.png` cannot be read as an image: there is no such file"):
        decode_image(tmp_path / "none.png", None, 3)
    with pytest.raises(InputError, match=r"`channels` \(=2\)"):
        decode_image(one_pixel("L", 1), None, 2)


def test_a_decompression_bomb_is_rejected(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="decompression bomb"):
        decode_image(encoded(Image.new("L", (64, 64))), None, 1)


@pytest.mark.parametrize(
    ("chunk_bytes", "chunk_rows", "expected"), [(72, 9, [3, 3, 1]), (999, 2, [2, 2, 2, 1]), (1, 9, [1] * 7)]
)
def test_chunks_are_bounded_in_bytes_and_rows(monkeypatch, chunk_bytes, chunk_rows, expected):
    monkeypatch.setattr(decode, "_CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(decode, "_CHUNK_ROWS", chunk_rows)
    files = [{"bytes": encoded(Image.new("L", (6, 4), value)), "path": None} for value in range(7)]
    rows = datasets.Dataset.from_dict({"image": files}, features=datasets.Features(image=datasets.Image()))
    chunks = [images for images, _ in decode.decode_rows(rows, "image", np.arange(7), Preprocess((4, 6), 1))]
    assert [len(images) for images in chunks] == expected
    assert np.concatenate(chunks)[:, 0, 0, 0].tolist() == list(range(7))
