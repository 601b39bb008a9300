"""Random crops for streamed images follow torchvision's distribution and depend only on seed, epoch and row."""

import io

import numpy as np
import pytest
from PIL import Image

from eqxcnn.images.crops import RandomCrop
from eqxcnn.images.decode import decode_box

CROP = RandomCrop((0.1, 0.6), (0.5, 2.0), seed=3)


def test_a_box_depends_on_seed_epoch_and_row():
    box = CROP.draw(1, 2, 300, 200)
    assert box == CROP.draw(1, 2, 300, 200)
    others = [
        CROP.draw(2, 2, 300, 200),
        CROP.draw(1, 3, 300, 200),
        RandomCrop(*vars(CROP).values()).draw(2, 1, 300, 200),
    ]
    assert len({box, *others}) == 4


def test_boxes_have_the_area_and_the_ratio_asked_for():
    boxes = np.array([CROP.draw(0, row, 300, 200) for row in range(4000)])
    top, left, height, width = boxes.T
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() <= 300
    assert (left + width).max() <= 200
    area, ratio = height * width / 60_000, width / height
    assert 0.098 < area.min() < 0.11
    assert 0.5 < area.max() < 0.605
    assert 0.48 < ratio.min() < 0.55
    assert 1.6 < ratio.max() < 2.05
    # Uniform in the logarithm, but for boxes wider than the image, which are drawn again.
    assert -0.35 < np.log(ratio).mean() < 0.0
    # The position is uniform in the room that is left.
    room = top / np.maximum(300 - height, 1)
    assert room.mean() == pytest.approx(0.5, abs=0.02)


def test_an_image_that_no_box_fits_gives_its_center():
    assert RandomCrop((1.0, 1.0), (1.0, 1.0), 0).draw(0, 0, 10, 100) == (0, 45, 10, 10)
    assert RandomCrop((1.0, 1.0), (1.0, 1.0), 0).draw(0, 0, 100, 10) == (45, 0, 10, 10)


def photograph(size=(640, 480), **options):
    """A smooth picture as a JPEG file."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("box", [(0, 0, 480, 640), (100, 50, 300, 400), (201, 77, 111, 93), (7, 9, 40, 50)])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_shows_the_same(box):
    file = photograph()
    found = decode_box(file, 3, (32, 48), lambda height, width: box if (height, width) == (480, 640) else None)
    top, left, height, width = box
    edges = (left, top, left + width, top + height)
    expected = np.asarray(Image.open(io.BytesIO(file)).resize((48, 32), Image.Resampling.BILINEAR, edges))
    assert np.abs(found.astype(int) - expected).mean() < 1.5
    assert np.abs(found.astype(int) - expected).max() < 16


def test_a_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    from PIL import JpegImagePlugin

    drafts, original = [], JpegImagePlugin.JpegImageFile.draft

    def draft(self, mode, size):
        original(self, mode, size)
        drafts.append(self.size)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", draft)
    for sides in ((480, 640), (240, 320), (100, 100)):
        decode_box(photograph(), 3, (60, 60), lambda *_, sides=sides: (0, 0, *sides))
    assert drafts == [(80, 60), (160, 120)]


def test_the_box_is_in_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = []

    def choose(height, width):
        seen.append((height, width))
        return 0, 0, height // 2, width

    turned = decode_box(photograph(exif=exif), 3, (32, 32), choose)
    upright = Image.open(io.BytesIO(photograph())).transpose(Image.Transpose.ROTATE_270)
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR, (0, 0, 480, 320)))
    assert seen == [(640, 480)]
    assert np.abs(turned.astype(int) - expected).mean() < 1.5


def test_an_orientation_behind_the_pixels_of_a_png_counts():
    import struct
    import zlib

    exif, plain = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30), (9, 9, 9)).save(plain, "PNG")
    data = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    file, seen = plain.getvalue()[:-12] + chunk + plain.getvalue()[-12:], []

    def choose(height, width):
        seen.append((height, width))
        return 0, 0, height, width

    decode_box(file, 3, (8, 8), choose)
    assert seen == [(60, 30)]
