"""Images are opened only from regular files, within limits, and if their format needs no other program."""

import io
import os
import socket
import sys
import threading

import datasets
import numpy as np
import pytest
from PIL import BmpImagePlugin, EpsImagePlugin, Image

from eqxcnn.data import Preprocess, decode, decode_image, files, open_source
from eqxcnn.data.fingerprint import fingerprint_images
from eqxcnn.data.headers import read_header
from eqxcnn.errors import InputError
from eqxcnn.images import decode as decoding
from eqxcnn.images import opening

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
PSD = b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\4\0\0\0\4\0\x08\0\3" + bytes(64)


def encoded(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def special_files(tmp_path):
    """Files with the suffix of an image: a pipe, a device, a socket, a loop of links, a folder, 2 GiB of zeros."""
    folder = tmp_path / "special"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "large.png").touch()
    os.truncate(folder / "large.png", 2 << 30)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket.png"))
    server.close()
    return folder


# --- formats ---


@pytest.mark.parametrize("content", [EPS, PSD])
def test_a_file_that_is_no_photograph_is_refused_by_its_content(tmp_path, monkeypatch, content):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)  # Calling it would raise another error.
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png.*not an image in a known format \(PNG, JPEG,"):
        decode_image(tmp_path / "x.png", (8, 8), 3)
    assert read_header(content) is None


def test_an_eps_file_in_a_class_folder_is_an_unreadable_row(make_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)
    folder = make_classes(tmp_path / "set")
    (folder / "a" / "0.png").write_bytes(EPS)
    opened = open_source(str(folder), test_fraction=0.01)
    with pytest.raises(InputError, match=r"row . of split `train`.*a/0\.png`: its content is not an image"):
        [opened.decode(split, progress=False) for split in ("train", "test")]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"])
def test_the_formats_of_photographs_are_read(kind):
    file = encoded(Image.new("RGB", (32, 32), (200, 100, 50)), kind)
    np.testing.assert_allclose(decode_image(file, None, 3).reshape(-1, 3).mean(0), (200, 100, 50), atol=3)
    assert read_header(file) is not None


# --- pixels ---


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    file = encoded(Image.new("L", (30, 20)), "BMP")
    monkeypatch.setenv("EQXCNN_MAX_PIXELS", "599")
    with pytest.raises(InputError, match=r"has 600 pixels, but the limit is 599: .*EQXCNN_MAX_PIXELS"):
        decode_image(file, None, 1)
    assert read_header(file) is None
    monkeypatch.setenv("EQXCNN_MAX_PIXELS", "600")
    assert decode_image(file, None, 1).shape == (20, 30, 1)


def test_by_default_the_limit_is_that_of_pillows_warning(monkeypatch):
    monkeypatch.delenv("EQXCNN_MAX_PIXELS", raising=False)
    assert opening.max_pixels() == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", "9" * 30, "\u0661"])
def test_the_limit_must_be_a_number(monkeypatch, text):
    monkeypatch.setenv("EQXCNN_MAX_PIXELS", text)
    with pytest.raises(InputError, match=r"`EQXCNN_MAX_PIXELS` .* must be a number"):
        opening.max_pixels()


def test_another_limit_skips_other_rows_in_spite_of_the_cache(make_classes, draw, tmp_path, monkeypatch):
    folder = make_classes(tmp_path / "set")
    draw(folder / "a" / "large.png", 9, size=(40, 40))
    monkeypatch.setenv("EQXCNN_MAX_PIXELS", "100")
    counts = []
    for limit in ("100", "2000"):
        monkeypatch.setenv("EQXCNN_MAX_PIXELS", limit)
        opened = open_source(str(folder), test_fraction=0.01)
        counts.append(opened.decode("train", image_size=(4, 6), on_bad_image="skip", progress=False).skipped)
    assert counts == [1, 0]


def test_16_bit_images_are_converted_in_strips(monkeypatch):
    values = np.arange(0, 65536, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    file = encoded(Image.fromarray(values))
    whole = decode_image(file, None, 1)
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 300)
    np.testing.assert_array_equal(decode_image(file, None, 1), whole)
    np.testing.assert_array_equal(whole[..., 0], np.rint(values / 257))


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    running, most, original = [], [], BmpImagePlugin.BmpImageFile.load

    def load(image):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.pop()
        return original(image)

    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load", load)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(decode, "_CHUNK_ROWS", 1)
    monkeypatch.setattr(decoding, "_LARGE_PIXELS", 3)
    images = [{"bytes": encoded(Image.new("L", (2, 2)), "BMP"), "path": None}] * 8
    rows = datasets.Dataset.from_dict({"image": images}, features=datasets.Features(image=datasets.Image()))
    list(decode.decode_rows(rows, "image", np.arange(8), Preprocess((2, 2), 1)))
    assert max(most) == 1


def test_only_the_first_of_many_frames_is_decoded():
    frames = [Image.new("L", (20, 20), value) for value in range(200)]
    for kind in ("GIF", "TIFF", "WEBP"):
        file = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode_image(file, None, 1).max() <= 1


# --- files ---


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe.png", "not a regular file"),
        ("device.png", "not a regular file"),
        ("socket.png", "not a regular file"),
        ("folder.png", "not a regular file"),
        ("loop.png", "symbolic links"),
        ("large.png", "it has 2,147,483,648 bytes, but the limit is 536,870,912"),
        ("none.png", "there is no such file"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ],
)
@pytest.mark.timeout(20)
def test_a_path_that_is_no_regular_file_is_refused_in_one_sentence(special_files, name, reason):
    with pytest.raises(InputError, match=reason):
        decode_image(special_files / name, (8, 8), 3)
    assert read_header({"bytes": None, "path": str(special_files / name)}) is None


@pytest.mark.timeout(20)
def test_paths_in_a_table_are_fingerprinted_without_waiting_for_a_pipe(special_files):
    paths = [*sorted(map(str, special_files.iterdir())), "a\0b", "x" * 300]
    features = datasets.Features(image=datasets.Image())
    rows = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in paths]}, features=features)
    assert len(fingerprint_images(rows, "image")) == 64


@pytest.mark.timeout(20)
def test_special_files_and_loops_in_class_folders_are_left_out(make_classes, special_files, tmp_path):
    folder = make_classes(tmp_path / "set")
    special_files.rename(folder / "c")
    make_classes(folder, names="c")
    (folder / "c" / "large.png").unlink()
    (folder / "loop").symlink_to("loop")
    (folder / "a" / "up").symlink_to(folder)
    opened = open_source(str(folder))
    assert opened.info.class_names == ("a", "b", "c")
    assert opened.info.splits == {"train": 15}


# --- folders ---


def test_images_of_a_folder_are_found_recursively_and_sorted(tmp_path, draw):
    for name in ("b.png", "a/z.JPG", "a/y/x.webp", ".hidden/x.png", "__pycache__/x.png", "._b.png", "c/notes.txt"):
        draw(tmp_path / name, 1)
    (tmp_path / "c" / "up").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in files.find_images(tmp_path)]
    assert names == ["a/y/x.webp", "a/z.JPG", "b.png"]
    with pytest.raises(InputError, match="holds no image files"):
        files.find_images(tmp_path / "c")


def test_a_folder_of_anything_but_images_is_given_up(tmp_path, monkeypatch, draw):
    monkeypatch.setattr(files, "_MAX_OTHER_ENTRIES", 10)
    for index in range(8):
        (tmp_path / "deep" / "er" / f"{index}.log").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / "er" / f"{index}.log").touch()
    for index in range(50):
        draw(tmp_path / "deep" / f"{index}.png", 1)
    assert len(files.find_images(tmp_path)) == 50  # Images do not count, nor does their number.
    (tmp_path / "one more").touch()
    message = "more than 10 files and folders that are neither images nor tables"
    with pytest.raises(InputError, match=message):
        files.find_images(tmp_path)
    (tmp_path / "deep").rename(tmp_path / "x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "x").rename(tmp_path / "deep" / "x")  # Now it has no class folders.
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_permission_is_named(tmp_path, make_classes):
    folder = make_classes(tmp_path / "set")
    (folder / "a").chmod(0)
    try:
        with pytest.raises(InputError, match=r"set/a` cannot be read: Permission denied"):
            open_source(str(folder))
    finally:
        (folder / "a").chmod(0o700)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, make_classes, monkeypatch):
    folder = make_classes(tmp_path / "set")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"set/a` cannot be read: Permission denied"):
        open_source(str(folder))


# --- checksums ---


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_png_with_damaged_pixels_is_refused(mode):
    data = bytearray(encoded(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode)))
    intact = decode_image(bytes(data), None, 3)
    start = data.index(b"IDAT") + 4
    end = data.index(b"IEND") - 8
    for at in range(start, end + 4):  # with the checksum itself
        damaged = bytes(data[:at]) + bytes([data[at] ^ 16]) + bytes(data[at + 1 :])
        with pytest.raises(InputError, match="its pixels are damaged"):
            decode_image(damaged, None, 3)
    np.testing.assert_array_equal(decode_image(bytes(data) + b"more", None, 3), intact)
