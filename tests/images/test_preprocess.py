"""`Preprocess` crops, pads and stretches as torchvision, timm and Pillow do."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from eqxcnn.errors import InputError
from eqxcnn.images import Preprocess, decode_image


def noise(height, width, channels=3):
    """Returns smooth random colors: with sharp noise, rounding errors would hide an offset of half a pixel."""
    small = np.random.default_rng(height * width).integers(0, 256, (max(height // 6, 2), max(width // 6, 2), channels))
    image = Image.fromarray(small.astype(np.uint8).squeeze())
    return image.resize((width, height), Image.Resampling.BICUBIC)


def resize_and_crop(image, shorter, size, interpolation):
    """Does the same as torchvision's `Resize(shorter)` and `CenterCrop(size)`, with Pillow's functions."""
    width, height = image.size
    if width <= height:
        width, height = shorter, int(shorter * height / width)
    else:
        width, height = int(shorter * width / height), shorter
    image = image.resize((width, height), interpolation)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    "shape", [(40, 40), (64, 48), (48, 64), (375, 500), (500, 375), (333, 500), (20, 300), (300, 20), (10, 400)]
)
@pytest.mark.parametrize(("fraction", "shorter"), [(1.0, 32), (0.875, 36), (32 / 34, 34), (0.9, 35)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_equals_resize_and_center_crop(shape, fraction, shorter, interpolation):
    image = noise(*shape)
    expected = resize_and_crop(image, shorter, 32, Image.Resampling[interpolation.upper()])
    if max(shape) >= 15 * min(shape):  # Only the kept part of a thin image is resized, with another rounding.
        found = Preprocess((32, 32), 3, "crop", fraction, interpolation)(image).astype(int)
        assert np.abs(found - expected).mean() < 0.3
    else:
        np.testing.assert_array_equal(Preprocess((32, 32), 3, "crop", fraction, interpolation)(image), expected)


def test_crop_of_another_shape_covers_height_and_width():
    image = noise(100, 200)
    # The image is scaled to 60 x 120, so that it covers 30 x 60 / 0.5, and the center is kept.
    expected = np.asarray(image.resize((120, 60), Image.Resampling.BILINEAR).crop((30, 15, 90, 45))).astype(int)
    found = Preprocess((30, 60), 3, "crop", 0.5)(image).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_stretch_is_decode_image_and_a_fraction_cuts_all_borders():
    image = noise(50, 70)
    np.testing.assert_array_equal(Preprocess((20, 24))(image), decode_image(image, (20, 24), 3))
    expected = np.asarray(image.resize((30, 25), Image.Resampling.BILINEAR).crop((3, 2, 27, 22))).astype(int)
    found = Preprocess((20, 24), 3, "stretch", 0.8)(image).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_pad_keeps_the_whole_image_on_gray():
    found = Preprocess((40, 40), 1, "pad")(Image.new("L", (100, 50), 7))
    assert (found[10:30] == 7).all()
    assert (found[:10] == 128).all()
    assert (found[30:] == 128).all()


def test_nearest_takes_pixels_as_they_are():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (8, 4)))
    assert set(Preprocess((4, 4), 1, "crop", 1.0, "nearest")(stripes).ravel().tolist()) <= {0, 255}
    assert set(Preprocess((4, 4), 1, "crop")(stripes).ravel().tolist()) - {0, 255}


def test_images_that_fit_are_not_resampled():
    image = noise(24, 24)
    for resize in ("stretch", "crop", "pad"):
        np.testing.assert_array_equal(Preprocess((24, 24), 3, resize)(image), np.asarray(image))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1), (1, 3)])
def test_thin_images_take_no_time_or_memory(resize, size):
    began = time.monotonic()
    assert Preprocess((64, 64), 3, resize, 0.875 if resize == "crop" else 1.0)(Image.new("L", size)).shape == (
        64,
        64,
        3,
    )
    assert time.monotonic() - began < 2


def test_a_source_is_a_path_bytes_or_an_image(tmp_path):
    image = noise(30, 40)
    image.save(tmp_path / "x.png")
    preprocess = Preprocess((16, 16), 3, "crop")
    for source in (tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()):
        np.testing.assert_array_equal(preprocess(source), preprocess(image))
    with pytest.raises(InputError, match=r"an image of type list cannot be decoded"):
        preprocess([1])
    with pytest.raises(InputError, match=r"none\.png` cannot be read as an image: there is no such file"):
        preprocess(tmp_path / "none.png")


def test_the_orientation_is_applied_before_the_crop():
    image = noise(30, 60)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    preprocess = Preprocess((16, 16), 3, "crop")
    np.testing.assert_array_equal(preprocess(turned.getvalue()), preprocess(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (0, 8)}, "`size` .* must be height and width"),
        ({"size": (8, 5000)}, "`size` .* from 1 to 4096"),
        ({"channels": 2}, "`channels` .* must be 1"),
        ({"resize": "pad", "crop_fraction": 0.5}, "`crop_fraction` .* must be 1 with `resize`"),
        ({"crop_fraction": 0.0}, "`crop_fraction` .* must be from 0.1 to 1"),
        ({"crop_fraction": 1.5}, "`crop_fraction`"),
        ({"crop_fraction": float("nan")}, "`crop_fraction`"),
        ({"mean": (0.5,), "std": (0.5, 0.5, 0.5)}, "`mean` .* must have one number for each of the 3 channels"),
        ({"mean": (0.5, 0.5, 0.5)}, "`std`"),
    ],
)
def test_an_invalid_value_is_refused_by_name(settings, message):
    with pytest.raises(InputError, match=message):
        Preprocess(**{"size": (8, 8), **settings})
