"""Columns of numbers are images too: arrays, nested lists, and flat lists of a square image."""

import datasets
import numpy as np
import pytest

from eqxcnn.data import fingerprint, from_dataset, open_source
from eqxcnn.data.pixels import count_dims
from eqxcnn.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), np.uint8)
LABELS = [0, 1] * 4


def make(images, feature=None, column="image", labels=LABELS):
    features = None
    if feature is not None:
        features = datasets.Features({column: feature, "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({column: list(images), "label": labels}, features=features)


def all_images(opened):
    """The images of the training and the test split, in the order of the rows."""
    images = np.zeros((8, 5, 5, opened.info.channels), np.uint8)
    for split in ("train", "test"):
        images[opened.parts[split].numbers] = opened.decode(split, progress=False).images
    return images


def decode_both(rows):
    opened = from_dataset(rows)
    for split in ("train", "test"):
        opened.decode(split, progress=False)


def refusal(rows):
    with pytest.raises(InputError) as caught:
        decode_both(rows)
    return str(caught.value)


GRAY = IMAGES[..., 0]
INT = datasets.Value("int64")
LAYOUTS = {
    "array3d": (IMAGES, datasets.Array3D((5, 5, 3), "uint8")),
    "array3d of one channel": (GRAY[..., None], datasets.Array3D((5, 5, 1), "int32")),
    "array2d": (GRAY, datasets.Array2D((5, 5), "uint8")),
    "array2d of any height": (GRAY, datasets.Array2D((None, 5), "int64")),
    "nested lists": (IMAGES.tolist(), None),
    "nested gray lists": (GRAY.tolist(), None),
    "large lists": (GRAY.tolist(), datasets.LargeList(datasets.LargeList(INT))),
    "lists of one length": (GRAY.tolist(), datasets.List(datasets.List(INT, length=5), length=5)),
    "flat": (GRAY.reshape(8, 25).tolist(), None),
    "flat and color": (IMAGES.reshape(8, 75).tolist(), datasets.List(datasets.Value("uint8"))),
    "floats from 0 to 1": ((GRAY / 255).tolist(), None),
    "float32 from 0 to 1": ((IMAGES / 255).astype(np.float32), datasets.Array3D((5, 5, 3), "float32")),
    "whole floats": (GRAY.astype(np.float64).tolist(), None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_are_decoded_exactly(layout):
    opened = from_dataset(make(*LAYOUTS[layout]))
    channels = 3 if "color" in layout or "3d" in layout or layout in ("nested lists", "float32 from 0 to 1") else 1
    channels = 1 if "one channel" in layout else channels
    assert (opened.info.channels, opened.info.image_size) == (channels, (5, 5))
    np.testing.assert_array_equal(all_images(opened), IMAGES if channels == 3 else GRAY[..., None])


def test_pixels_on_disk_are_found_resized_and_cached(tmp_path):
    make(GRAY, LAYOUTS["array2d"][1]).save_to_disk(tmp_path / "set")
    opened = open_source(str(tmp_path / "set"))
    np.testing.assert_array_equal(all_images(opened), GRAY[..., None])
    assert opened.decode("train", image_size=(8, 6), channels=3, progress=False).images.shape[1:] == (8, 6, 3)
    assert len(list((tmp_path / "cache").glob("set-train-8x6x3-*/images.npy"))) == 1


def test_sizes_may_differ():
    opened = from_dataset(make([*GRAY[:7].tolist(), GRAY[7, :3, :3].tolist()]))
    assert opened.info.image_size is None
    assert opened.decode("train", image_size=(5, 5), progress=False).images.shape[1:] == (5, 5, 1)


def test_the_range_of_the_training_images_holds_for_single_images():
    """A dark image in a column with values from 0 to 255 is not read as an image with values from 0 to 1."""
    images = GRAY.astype(np.float64)
    images[2] = 1
    np.testing.assert_array_equal(all_images(from_dataset(make(images.tolist())))[2], np.ones((5, 5, 1)))


def test_the_cache_keeps_equal_values_of_another_range_apart():
    test = make(np.ones((2, 5, 5)).tolist(), labels=[0, 1])
    for high, expected in ((1.0, 255), (2.0, 1)):
        train = make(np.full((8, 5, 5), high).tolist())
        opened = from_dataset(datasets.DatasetDict(train=train, test=test))
        assert opened.decode("test", progress=False).images.max() == expected


def test_selected_rows_of_a_table():
    opened = from_dataset(make(GRAY, LAYOUTS["array2d"][1]).select([7, 0, 5, 2]))
    kept = [[7, 0, 5, 2][number] for number in opened.parts["train"].numbers]
    np.testing.assert_array_equal(opened.decode("train", progress=False).images[..., 0], GRAY[kept])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.moveaxis(IMAGES, -1, 1).tolist(),
            "the shape (3, 5, 5) is not height, width and 1 or 3 channels, channels last",
        ),
        (np.zeros((8, 26), int).tolist(), "the 26 values do not form a square image with 1 or 3 channels"),
        (np.zeros((8, 5, 5, 2), int).tolist(), "the shape (5, 5, 2) is not height"),
        ((GRAY.astype(int) - 1).tolist(), "its values -1 to "),
        ((GRAY.astype(int) + 50).tolist(), "are not within 0 to 255"),
        ((GRAY / 100).tolist(), "must be whole numbers from 0 to 255, because the column contains values above 1"),
        ((GRAY / 255 - 0.5).tolist(), "are not within 0 to 1"),
        ([[[0.5, None], [0.5, 0.5]]] * 8, "some of its values are missing"),
        ([[[float("nan")] * 2] * 2] * 8, "its values nan to nan are not within 0 to 1"),
        ([[[0, 1], [2]]] * 8, "its lists differ in length"),
        ([[[1]]] * 7 + [[[]]], "it is empty"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused(images, message):
    text = refusal(make(images))
    assert message in text
    assert "\n" not in text


def test_bad_rows_are_skipped():
    images = [*GRAY[:5].tolist(), None, [[300] * 5] * 5, [[1, 2], [3]]]
    opened = from_dataset(make(images))
    used = [opened.decode(split, image_size=(5, 5), on_bad_image="skip", progress=False) for split in ("train", "test")]
    assert sum(len(split.labels) for split in used) == 5
    assert sum(split.skipped for split in used) == 3


def test_lists_of_numbers_with_another_name_are_not_taken_for_images():
    assert "no image column among `tokens`, `label`" in refusal(make(GRAY.reshape(8, 25).tolist(), column="tokens"))
    assert from_dataset(make(GRAY.reshape(8, 25).tolist(), column="tokens"), image_column="tokens").info.channels == 1
    assert from_dataset(make(GRAY.tolist(), column="tokens")).info.image_size == (5, 5)
    assert count_dims([datasets.Value("string")]) == count_dims(datasets.Value("int8")) == 0


def test_encoded_images_come_before_pixels():
    rows = make(GRAY.tolist(), column="mask")
    both = rows.add_column("photo", [{"bytes": b"x", "path": None}] * 8).cast_column("photo", datasets.Image())
    with pytest.raises(InputError, match="none of the 8 images of split `train`"):
        from_dataset(both)


# --- fingerprints ---


def digest(images, feature=None):
    return fingerprint.fingerprint_images(make(images, feature, labels=[0] * len(images)), "image")


def test_a_fingerprint_follows_pixels_shapes_and_order():
    flat = GRAY.reshape(8, 25)
    changed = GRAY.copy()
    changed[7, 4, 4] ^= 1
    zeros = [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    found = [
        digest(GRAY.tolist()),
        digest(changed.tolist()),
        digest(GRAY[::-1].tolist()),
        digest(flat.tolist()),
        digest(GRAY[:7].tolist()),
        digest([*GRAY[:7].tolist(), None]),
        digest((GRAY / 255).tolist()),
        digest(zeros),
        digest([[[0, 0]], [[0, 0], [0, 0], [0, 0]]]),
        digest([[[0, 0], [0, None]], [[0, 0], [0, 0]]]),
        digest([[[0, 0], [0, 0]], [[0, 0], [0, None]]]),
        digest([zeros[0], None]),
    ]
    assert len(set(found)) == len(found)
    assert digest(GRAY.tolist()) == found[0]


def test_a_fingerprint_does_not_depend_on_chunks_or_unused_rows():
    feature = datasets.Array2D((5, 5), "uint8")
    whole = make(GRAY, feature)
    halves = datasets.concatenate_datasets([whole.select(range(3)), whole.select(range(3, 8))])
    assert fingerprint.fingerprint_images(halves, "image") == digest(GRAY, feature)
    assert fingerprint.fingerprint_images(whole.select(range(2, 6)), "image") == digest(GRAY[2:6], feature)
