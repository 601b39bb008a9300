"""The user's arrays become a data set without a copy, or are refused in one sentence."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn.data import DataSet, Prefetch, from_arrays, hold_out, train_batches
from eqxcnn.errors import InputError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (12, 6, 4, 3), np.uint8)
GRAY = COLOR[..., 0]
LABELS = np.array([0, 1, 2] * 4)


def test_images_with_a_test_part_are_not_copied():
    opened = from_arrays(COLOR[:9], LABELS[:9], test=(COLOR[9:], LABELS[9:]), name="cells")
    assert isinstance(opened, DataSet)
    assert (opened.info.name, opened.info.source, opened.info.class_names) == ("cells", "own", ("0", "1", "2"))
    assert (opened.info.channels, opened.info.image_size) == (3, (6, 4))
    assert (opened.info.splits, opened.info.test_split) == ({"train": 9, "test": 3}, "test")
    train, test = opened.decode("train"), opened.decode("test")
    assert np.shares_memory(train.images, COLOR)
    np.testing.assert_array_equal(train.images, COLOR[:9])
    np.testing.assert_array_equal(test.images, COLOR[9:])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2] * 3, [0, 1, 2])
    assert (train.labels.dtype, train.skipped, train.class_names) == (np.int32, 0, ("0", "1", "2"))


def test_a_part_of_each_class_is_held_out_as_for_other_sources():
    opened = from_arrays(GRAY, LABELS, test_fraction=0.25, seed=3)
    kept, held = hold_out(LABELS, 0.25, 3, "test")
    train, test = opened.decode("train"), opened.decode("test")
    assert (opened.info.splits, opened.info.test_split) == ({"train": 12}, None)
    np.testing.assert_array_equal(train.images[..., 0], GRAY[kept])
    np.testing.assert_array_equal(test.images[..., 0], GRAY[held])
    assert train.labels.tolist() == LABELS[kept].tolist()
    assert sorted(test.labels.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_floating_point_is_kept_as_float32_and_not_quantized(dtype):
    images = np.linspace(0, 1, GRAY.size).reshape(GRAY.shape).astype(dtype)
    train = from_arrays(images, LABELS, test=(images[:3], LABELS[:3])).decode("train").images
    assert train.dtype == np.float32
    np.testing.assert_array_equal(train[..., 0], images.astype(np.float32))


def test_arrays_of_jax_are_taken():
    opened = from_arrays(jnp.asarray(COLOR), jnp.asarray(LABELS), test=(jnp.asarray(COLOR[:3]), jnp.arange(3)))
    np.testing.assert_array_equal(opened.decode("train").images, COLOR)
    assert opened.info.fingerprint == from_arrays(COLOR, LABELS, test=(COLOR[:3], np.arange(3))).info.fingerprint


@pytest.mark.parametrize(
    "labels", [["b", "a", "c"] * 4, np.array(["b", "a", "c"] * 4), np.array(["b", "a", "c"] * 4, "O")]
)
def test_texts_are_sorted_into_classes_or_take_the_order_of_the_given_names(labels):
    test = GRAY[:3], ["a", "b", "c"]
    opened = from_arrays(GRAY, labels, test=test)
    assert opened.info.class_names == ("a", "b", "c")
    assert opened.decode("train").labels[:3].tolist() == [1, 0, 2]
    assert opened.decode("test").labels.tolist() == [0, 1, 2]
    named = from_arrays(GRAY, labels, test=test, class_names=["c", "a", "b", "d"])
    assert named.info.class_names == ("c", "a", "b", "d")
    assert named.decode("train").labels[:3].tolist() == [2, 1, 0]


def test_integers_take_class_names_and_may_then_have_gaps():
    opened = from_arrays(GRAY[:4], np.array([3, 1, 1, 3], np.uint8), class_names=("w", "x", "y", "z"))
    assert opened.info.class_names == ("w", "x", "y", "z")
    assert sorted(opened.decode("train").labels.tolist()) == [1, 3]


def test_a_fingerprint_follows_pixels_labels_names_types_and_test_part():
    def digest(images=COLOR, labels=LABELS, **options):
        return from_arrays(images, labels, **options).info.fingerprint

    changed = COLOR.copy()
    changed[5, 2, 1, 0] ^= 1
    swapped = LABELS.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    floats = (COLOR / 255).astype(np.float32)
    seen = [
        digest(),
        digest(changed),
        digest(labels=swapped),
        digest(class_names=["a", "b", "c"]),
        digest(floats),
        digest(COLOR.reshape(12, 4, 6, 3)),
        digest(test_fraction=0.5),
        digest(seed=1),
        digest(test=(COLOR[:3], LABELS[:3])),
        digest(test=(changed[3:6], LABELS[:3])),
    ]
    assert len(set(seen)) == len(seen)
    assert digest(COLOR.copy()) == digest(np.asfortranarray(COLOR)) == seen[0]
    assert digest(name="other") == seen[0]


def test_another_size_is_made_as_for_image_files():
    for images in (GRAY, COLOR):
        test = from_arrays(images, LABELS, test=(images[:3], LABELS[:3])).decode("test", image_size=(9, 5))
        expected = [
            np.asarray(Image.fromarray(image).resize((5, 9), Image.Resampling.BILINEAR)) for image in images[:3]
        ]
        np.testing.assert_array_equal(test.images, np.reshape(expected, (3, 9, 5, -1)))
        assert test.labels.tolist() == [0, 1, 2]
    held = from_arrays(GRAY, LABELS).decode("test", image_size=(9, 5), channels=3)
    assert held.images.shape == (3, 9, 5, 3)
    assert sorted(held.labels.tolist()) == [0, 1, 2]


def test_two_sets_of_one_name_keep_their_own_resized_images():
    first, second = (
        from_arrays(images, LABELS, test=(images[:3], LABELS[:3])).decode("train", image_size=(3, 3)).images
        for images in (GRAY, 255 - GRAY)
    )
    assert not np.array_equal(first, second)


def test_floating_point_is_not_resized():
    opened = from_arrays((GRAY / 255).astype(np.float32), LABELS)
    assert opened.decode("train", image_size=(6, 4), channels=1).images.dtype == np.float32
    with pytest.raises(
        InputError, match=r"`own` are 6x4x1 in floating point and are not converted to 32x32x1: convert"
    ):
        opened.decode("train", image_size=(32, 32))


def test_batches_of_floating_point_are_read_ahead():
    opened = from_arrays((COLOR / 255).astype(np.float32), LABELS, test=(COLOR[:1] / 255, LABELS[:1]))
    train = opened.decode("train")
    ahead = Prefetch(train.images, train.labels, train_batches(np.arange(12, dtype=np.int32), 4), max_bytes=1)
    images, labels, rows = next(iter(ahead))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, train.images[:4])
    assert (labels.tolist(), rows.tolist()) == ([0, 1, 2, 0], [0, 1, 2, 3])


NAN = np.full((12, 6, 4), 0.5)
NAN[3, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GRAY[0], r"the images of shape \(6, 4\) must be"),
        (np.moveaxis(COLOR, -1, 1), r"channels last with `np.moveaxis\(images, 1, -1\)`"),
        (np.zeros((12, 6, 4, 2), np.uint8), "with 1 or 3 channels"),
        (np.zeros((0, 6, 4), np.uint8), r"the images of shape \(0, 6, 4, 1\) are empty"),
        (GRAY.astype(np.int64), "of type int64 must be `uint8`, from 0 to 255, or floating point, from 0 to 1"),
        (GRAY > 3, "of type bool must be `uint8`"),
        (GRAY.astype(np.float32), "to 25., not from 0 to 1: divide them by 255"),
        (GRAY / 127.5 - 1, "values from -1 to 0.99[0-9]+, not from 0 to 1"),
        (NAN, "contain NaN"),
        (np.where(np.isnan(NAN), np.inf, NAN), "values from 0.5 to inf"),
        ([GRAY[0], GRAY[0, :2]], "cannot be converted to an array"),
        (None, "the images of shape"),
        (np.ma.masked_array(GRAY, GRAY > 250), "the images contain masked values: replace them"),
    ],
)
def test_images_that_no_classifier_can_use_are_refused(images, message):
    with pytest.raises(InputError, match=message) as caught:
        from_arrays(images, LABELS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:9], "there are 12 images and 9 labels"),
        (np.eye(3)[LABELS], r"of shape \(12, 3\) must be one integer or string per image: .*argmax"),
        (np.zeros((12, 1, 1), int), "one integer or string per image"),
        (np.zeros(12, int), "at least two classes, but got 0"),
        (["x"] * 12, "at least two classes, but got x"),
        (LABELS + 1, "they range from 1 to 3 and none is 0: number the classes without gaps, or give `class_names`"),
        (LABELS * 2, "they range from 0 to 4 and none is 1: number"),
        (LABELS - 1, "from -1 to 1 no image has 0|must be integers from 0 to k - 1"),
        (LABELS / 2, "have type float64, but must be integers from 0 to k - 1 for k classes, or strings"),
        (LABELS > 1, "have type bool, but must be integers"),
        (["a", None, "b"] * 4, "have mixed types, but must be integers"),
        (["a", "", "b"] * 4, "contain an empty string"),
        ([], "the labels are empty"),
        (np.ma.masked_array(LABELS, LABELS > 1), "the labels contain masked values: replace them"),
        (["a", "\ud800", "b"] * 4, "the labels contain a string that is not valid Unicode"),
        ([[0], [0, 1]], "cannot be converted to an array"),
    ],
)
def test_labels_that_no_classifier_can_use_are_refused(labels, message):
    with pytest.raises(InputError, match=message) as caught:
        from_arrays(GRAY, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": (GRAY[:2], [0, 7])}, "the test labels contain 7, but the 3 classes are 0 to 2"),
        ({"test": (GRAY[:2], [0])}, "there are 2 images and 1 test labels"),
        ({"test": (COLOR[:2], [0, 1])}, "the test images are 6x4x3 of type uint8, and the training images 6x4x1"),
        ({"test": (GRAY[:2] / 255, [0, 1])}, "the test images are 6x4x1 of type float32"),
        ({"test": (GRAY[:0], [])}, "the test images of shape"),
        ({"class_names": ["a", "b"]}, "the labels contain 2, but the 2 classes are 0 to 1"),
        ({"class_names": ["a", "b", "a"]}, "`class_names` has `a` twice"),
        ({"class_names": ["a", "", "c"]}, "`class_names` must be a list of strings"),
        ({"class_names": "abc"}, "`class_names` must be a list of strings"),
        (
            {"class_names": ["a", "b", "c", "d"], "test": (GRAY[:1], [3])},
            "the class `d`, which has no training",
        ),
        ({"name": "my data"}, "the name 'my data' of a data set must have at most 40 letters"),
        ({"name": "a/b"}, "the name 'a/b'"),
        ({"test_fraction": 1.0}, "must be between 0 and 1"),
        ({"seed": -1}, r"`seed` \(=-1\) must be 0 or more"),
    ],
)
def test_other_arguments_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        from_arrays(GRAY, LABELS, **options)


def test_test_images_of_a_class_that_training_lacks_are_refused_by_name():
    with pytest.raises(InputError, match="the test labels contain `c`, which is not one of the 2 classes"):
        from_arrays(GRAY, ["a", "b"] * 6, test=(GRAY[:1], ["c"]))


def test_one_image_per_class_cannot_be_held_out():
    with pytest.raises(InputError, match="only one image: give `test`"):
        from_arrays(GRAY[:3], LABELS[:3])


def test_the_arguments_of_decode_are_checked():
    opened = from_arrays(GRAY, LABELS)
    for options, message in (({"channels": 2}, "`channels`"), ({"image_size": (0, 3)}, "`image_size`")):
        with pytest.raises(InputError, match=message):
            opened.decode("train", **options)
