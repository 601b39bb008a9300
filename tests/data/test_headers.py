"""The image size and the channels of a data set depend on all training images, not only on the first ones."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import headers, load, open_source
from eqxcnn.data.headers import find_size_and_channels, read_header
from eqxcnn.errors import InputError


def encode(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GRAY, COLOR, WIDE = (encode(Image.new(*args)) for args in (("L", (6, 4)), ("RGB", (6, 4)), ("L", (9, 4))))


def table(files):
    features = datasets.Features(image=datasets.Image())
    return datasets.Dataset.from_dict({"image": [{"bytes": file, "path": None} for file in files]}, features=features)


def saved(folder, train, test=(GRAY, GRAY)):
    splits = {}
    for name, files in (("train", train), ("test", test)):
        splits[name] = table(files).add_column("label", [index % 2 for index in range(len(files))])
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


# --- all rows ---


def test_one_colored_image_far_down_makes_a_set_colored(tmp_path):
    # Row 100 is none of 64 rows spread over 300.
    files = [GRAY] * 300
    files[100] = encode(Image.new("RGB", (6, 4), (200, 100, 50)))
    source = saved(tmp_path / "set", files)
    assert (open_source(source).info.channels, open_source(source).info.image_size) == (3, (4, 6))
    split = load(source, "train", progress=False)
    assert split.images.shape == (300, 4, 6, 3)
    assert split.images[100, 0, 0].tolist() == [200, 100, 50]


def test_one_image_of_another_size_far_down_makes_sizes_differ(tmp_path):
    files = [GRAY] * 300
    files[100] = WIDE
    source = saved(tmp_path / "set", files)
    assert open_source(source).info.image_size is None
    with pytest.raises(InputError, match="differ in size: give an `image_size`"):
        load(source, "train")


def test_test_images_are_converted_to_the_size_and_channels_of_training_images(tmp_path):
    source = saved(tmp_path / "set", [GRAY] * 4, [encode(Image.new("RGB", (12, 8), (200, 100, 50)))] * 2)
    assert load(source, "test", progress=False).images[:, 0, 0].tolist() == [[124], [124]]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([GRAY], ((4, 6), 1)),
        ([GRAY, b"broken", GRAY], ((4, 6), 1)),
        ([GRAY, COLOR], ((4, 6), 3)),
        ([GRAY, WIDE], (None, 1)),
        ([WIDE, COLOR], (None, 3)),
        ([b"broken", b""], None),
    ],
)
def test_size_and_channels(files, expected):
    assert find_size_and_channels(table(files), "image", "x") == expected


def test_known_size_and_channels_are_kept(monkeypatch):
    assert find_size_and_channels(table([GRAY]), "image", "x", image_size=(8, 8)) == ((8, 8), 1)
    assert find_size_and_channels(table([GRAY]), "image", "x", channels=3) == ((4, 6), 3)
    monkeypatch.setattr(headers, "read_header", None)
    assert find_size_and_channels(table([GRAY]), "image", "x", (8, 8), 1) == ((8, 8), 1)


@pytest.mark.parametrize(
    ("files", "options", "count"),
    [
        ([GRAY] * 200, {}, 264),
        ([COLOR] * 200, {}, 264),
        ([COLOR, WIDE] * 100, {}, 2),
        ([COLOR] * 200, {"image_size": (4, 6)}, 1),
        ([GRAY, WIDE] * 100, {"channels": 1}, 2),
        ([GRAY] * 200, {"image_size": (4, 6)}, 264),
    ],
)
def test_no_more_headers_are_read_than_needed(monkeypatch, files, options, count):
    read = []
    monkeypatch.setattr(headers, "read_header", lambda value: read.append(1) or read_header(value))
    find_size_and_channels(table(files), "image", "x", **options)
    assert abs(len(read) - count) <= 2


def test_the_headers_of_a_large_split_are_read_once(monkeypatch):
    monkeypatch.setattr(headers, "_NOTE_ROWS", 3)
    assert find_size_and_channels(table([GRAY, GRAY, WIDE]), "image", "one") == (None, 1)
    assert find_size_and_channels(table([GRAY, GRAY, GRAY]), "image", "two") == ((4, 6), 1)
    # With the channels given, reading stops at the second size, before the color image.
    find_size_and_channels(table([GRAY, WIDE, COLOR]), "image", "three", channels=1)
    assert find_size_and_channels(table([GRAY, WIDE, COLOR]), "image", "three") == (None, 3)
    monkeypatch.setattr(headers, "read_header", None)
    assert find_size_and_channels(table([GRAY, GRAY, WIDE]), "image", "one") == (None, 1)
    assert find_size_and_channels(table([GRAY, GRAY, GRAY]), "image", "two") == ((4, 6), 1)
    assert find_size_and_channels(table([GRAY, GRAY, GRAY]), "image", "two", channels=3) == ((4, 6), 3)
    assert find_size_and_channels(table([GRAY, GRAY, GRAY]), "image", "two", image_size=(2, 2)) == ((2, 2), 1)


# --- one header ---


def test_gray_alpha_and_16_bit_are_gray():
    gray16 = Image.fromarray(np.array([[9]], np.uint16))
    for image in (Image.new("1", (1, 1), 1), Image.new("L", (1, 1), 7), Image.new("LA", (1, 1), (7, 9)), gray16):
        assert read_header(encode(image)) == ((1, 1), True)
    assert read_header(encode(Image.new("L", (3, 2)), "JPEG")) == ((2, 3), True)
    for mode in ("RGB", "RGBA", "P"):
        assert read_header(encode(Image.new(mode, (3, 2)))) == ((2, 3), False)
    assert read_header(encode(Image.new("RGB", (3, 2)), "JPEG")) == ((2, 3), False)


def test_what_is_no_image_has_no_header():
    damaged = bytearray(GRAY)
    damaged[18] += 1  # The width, which the checksum covers.
    for value in (b"", b"broken", GRAY[:20], bytes(damaged), None, {"bytes": None, "path": None}):
        assert read_header(value) is None


def test_the_header_of_a_file_on_disk(tmp_path):
    (tmp_path / "x.png").write_bytes(GRAY)
    assert read_header({"bytes": None, "path": str(tmp_path / "x.png")}) == ((4, 6), True)
    assert read_header({"bytes": None, "path": str(tmp_path / "none.png")}) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_the_size_is_that_of_the_upright_image(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (4, 6) if orientation < 5 else (6, 4)
    assert read_header(encode(Image.new("RGB", (6, 4)), kind, exif=exif)) == (size, False)


def test_an_orientation_behind_the_pixels_of_a_png_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encode(Image.new("L", (6, 4)), exif=exif)
    start = file.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(file[start : start + 4], "big")
    last = file.index(b"IEND") - 4
    moved = file[:start] + file[end:last] + file[start:end] + file[last:]
    assert read_header(moved) == ((6, 4), True)
