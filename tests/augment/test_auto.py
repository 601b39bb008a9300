"""Pillow's operations and the policies made of them, against Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from eqxcnn import augment
from eqxcnn.augment import auto, pil
from eqxcnn.errors import InputError

RNG = np.random.default_rng(0)
#: Noise, a ramp of few values, one color, and a gray image.
IMAGES = {
    "noise": RNG.integers(0, 256, (13, 10, 3), np.uint8),
    "ramp": (np.arange(32)[:, None, None] + np.arange(24)[None, :, None] + np.arange(3) * 40).astype(np.uint8),
    "flat": np.full((8, 8, 3), 77, np.uint8),
    "gray": RNG.integers(30, 200, (9, 12, 1), np.uint8),
}
ENHANCERS = {
    "brightness": ImageEnhance.Brightness, "color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}  # fmt: skip


def picture(image):
    return Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])


def pillows(name, image, strength):
    """What Pillow makes of an image."""
    picture_ = picture(image)
    shift = {
        "shear_x": (1, strength, 0, 0, 1, 0), "shear_y": (1, 0, 0, strength, 1, 0),
        "translate_x": (1, 0, strength, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, strength),
    }  # fmt: skip
    if name in shift:
        after = picture_.transform(picture_.size, Image.Transform.AFFINE, shift[name])
    elif name in ENHANCERS:
        after = ENHANCERS[name](picture_).enhance(1 + strength)
    else:
        after = {
            "identity": lambda: picture_,
            "rotate": lambda: picture_.rotate(strength),
            "posterize": lambda: ImageOps.posterize(picture_, int(strength)),
            "solarize": lambda: ImageOps.solarize(picture_, strength),
            "autocontrast": lambda: ImageOps.autocontrast(picture_),
            "equalize": lambda: ImageOps.equalize(picture_),
            "invert": lambda: ImageOps.invert(picture_),
        }[name]()
    return np.asarray(after).reshape(image.shape)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("bins", [10, 31])
def test_every_operation_at_every_strength_is_pillows(kind, bins):
    image = IMAGES[kind]
    strengths = auto.Strengths(image.shape, bins, 0.99, (0.6, 0.4), 135.0, 0.9, 4)
    levels = jnp.asarray(image, jnp.int32)
    apply = jax.jit(jax.vmap(auto.apply, in_axes=(None, 0, 0, 0)))
    names = [name for name in auto.OPERATIONS for _ in range(2 * bins)]
    signs, magnitudes = np.tile(np.repeat([0, 1], bins), 15), np.tile(np.arange(bins), 30)
    operations = np.array([auto.OPERATIONS.index(name) for name in names])
    chosen = strengths._strengths[signs, operations, magnitudes]
    found = np.asarray(apply(levels, operations, chosen, strengths._matrices[signs, operations, magnitudes]))
    for name, sign, strength, ours in zip(names, signs, np.asarray(chosen, np.float64), found, strict=True):
        if sign and name not in auto._SIGNED:
            continue
        # As exact as the table that ours comes from.
        theirs = pillows(name, image, round(strength, 6) if name not in ENHANCERS else strength)
        if name == "autocontrast" or name in ENHANCERS:
            # Where rounding decides.
            assert np.abs(ours - theirs).max() <= 1, (name, strength)
            assert (ours != theirs).mean() < (0.2 if name == "autocontrast" else 0.05), (name, strength)
        elif name in ("rotate", "shear_x", "shear_y"):
            # The strength that is told was rounded to 24 bits; ours was not.
            assert (ours != theirs).mean() < 0.01, (name, strength)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} {strength}")


@pytest.mark.parametrize("degrees", [0.0, 17.0, -45.0, 90.0, 135.0])
@pytest.mark.parametrize("kind", ["noise", "gray"])
def test_matrices_are_pillows_to_the_bit(kind, degrees):
    image = IMAGES[kind]
    height, width, _ = image.shape
    for matrix, theirs in (
        (pil.rotation(degrees, height, width), picture(image).rotate(degrees)),
        ((1, degrees / 100, 0, 0, 1, 0), picture(image).transform((width, height), 0, (1, degrees / 100, 0, 0, 1, 0))),
        ((1, 0, 0, -0.013, 1, 0.4), picture(image).transform((width, height), 0, (1, 0, 0, -0.013, 1, 0.4))),
    ):
        ours = pil.affine(jnp.asarray(image, jnp.int32), jnp.asarray(pil.fixed_matrix(matrix)))
        np.testing.assert_array_equal(ours, np.asarray(theirs).reshape(image.shape))


def test_smoothing_is_pillows():
    theirs = np.asarray(picture(IMAGES["noise"]).filter(ImageFilter.SMOOTH))
    np.testing.assert_array_equal(pil.smooth(jnp.asarray(IMAGES["noise"], jnp.int32)), theirs)


def over_keys(change, image, count=400):
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(change, in_axes=(None, 0)))(image, keys))


@pytest.mark.parametrize("name", ["auto_augment", "rand_augment", "trivial_augment", "rand_augment(1, 30)"])
def test_policies_change_images_into_pictures_of_whole_levels(name):
    image = jnp.asarray(IMAGES["ramp"] / np.float32(255))
    after = over_keys(augment.build([name]), image)
    assert after.shape == (400, *image.shape)
    np.testing.assert_allclose(after * 255, np.round(after * 255), atol=1e-4)
    assert 0 <= after.min() < after.max() <= 1
    same = (np.abs(after - image) < 1e-6).all((1, 2, 3)).mean()
    # Identity, equalize of an image that is equal already, a pair that is left out by its coins ...
    assert same < 0.45
    # At one strength there are 23: nine operations have a sign.
    assert len({each.tobytes() for each in after}) > 15


def test_each_of_fourteen_operations_is_as_likely(monkeypatch):
    seen = jnp.zeros((8, 8, 3))
    monkeypatch.setattr(auto, "apply", lambda levels, operation, strength, matrix: levels * 0 + operation)
    drawn = np.round(over_keys(augment.rand_augment(1, 9), seen, 2800)[:, 0, 0, 0] * 255).astype(int)
    counts = np.bincount(drawn, minlength=14)
    assert len(counts) == 14
    # Four deviations of 2800 draws with a chance of 1 / 14.
    assert np.abs(counts - 200).max() < 4 * np.sqrt(2800 / 14 * 13 / 14)


def test_autoaugments_table_is_that_of_the_paper():
    pairs = [entry.split() for entry in auto._CIFAR10.replace("\n", " ").split(";")]
    assert len(pairs) == 25
    assert all(len(pair) == 6 and {pair[0], pair[3]} <= set(auto.OPERATIONS) for pair in pairs)


def test_erasing_replaces_a_box_of_the_drawn_area():
    image = jnp.full((40, 30, 3), 0.5)
    after = over_keys(augment.random_erasing(0.7, scale=(0.1, 0.2), ratio=(0.5, 2.0)), image)
    hidden = (after != 0.5).all(-1)
    erased = hidden.any((1, 2))
    assert abs(erased.mean() - 0.7) < 4 * np.sqrt(0.21 / 400)
    for each in hidden[erased]:
        rows, columns = each.any(1).sum(), each.any(0).sum()
        assert each.sum() == rows * columns
        # Sides are cut off to whole pixels.
        assert 0.1 * 1200 - rows - columns < each.sum() <= 0.2 * 1200
        assert 0.4 < rows / columns < 2.3
    assert after[hidden].std() == pytest.approx(np.sqrt(1 / 12), rel=0.05)
    black = over_keys(augment.random_erasing(1.0, noise=False), image)
    assert set(np.unique(black)) == {0.0, 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("rand_augment(0)", r"`operations` \(=0\) must be 1 or more"),
        ("rand_augment(2, 31)", r"`magnitude` \(=31\) from 0 to 30"),
        ("random_erasing(2)", r"`p` \(=2\) is a probability"),
        ("random_erasing(scale=(0.5, 0.2))", r"`scale` \(=\(0.5, 0.2\)\) must be a range above 0 up to 1"),
        ("random_erasing(ratio=(0, 1))", r"`ratio` \(=\(0, 1\)\) must be a range above 0\."),
    ],
)
def test_numbers_that_cannot_be_are_refused(entry, message):
    with pytest.raises(InputError, match=message):
        augment.build([entry])


def test_strengths_by_hand():
    """Magnitude 9 of 31 on images of 331 x 662, and the last of ten."""
    rows = {name: place for place, name in enumerate(auto.OPERATIONS)}
    wide = auto.Strengths((331, 662, 3), 31, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths[0]
    expected = {
        "identity": 0, "shear_x": 0.09, "shear_y": 0.09, "translate_x": 90, "translate_y": 45, "rotate": 9,
        "brightness": 0.27, "color": 0.27, "contrast": 0.27, "sharpness": 0.27, "posterize": 7, "solarize": 178.5,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(wide[rows[name], 9], value, rtol=1e-6, err_msg=name)
    ten = auto.Strengths((331, 662, 3), 10, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths
    assert [int(ten[0, rows["posterize"], each]) for each in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert [float(ten[sign, rows["shear_y"], 9]) for sign in (0, 1)] == pytest.approx([0.3, -0.3])
    assert (ten[0, rows["solarize"], 0], ten[0, rows["solarize"], 9]) == (255, 0)


def drawn(monkeypatch, change, shape, count=3000):
    """Operation and strength of every call of `apply`, `[calls count 2]`, as the policy draws them."""
    seen = []

    def apply(levels, operation, strength, matrix):
        seen.append(jnp.stack([operation.astype(jnp.float32), strength]))
        return levels

    def told(image, key):
        seen.clear()
        change(image, key)
        return jnp.stack(seen)

    monkeypatch.setattr(auto, "apply", apply)
    return over_keys(told, jnp.zeros(shape), count).reshape(-1, 2)


def test_autoaugment_draws_pairs_with_their_chances_and_strengths(monkeypatch):
    found = drawn(monkeypatch, augment.auto_augment(), (20, 30, 3), 1500)
    assert len(found) == 3000
    number = {name: place for place, name in enumerate(auto.OPERATIONS)}
    chance, strengths = np.zeros(len(number)), {}
    table = auto.Strengths((20, 30, 3), 10, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths
    for pair in (entry.split() for entry in auto._CIFAR10.replace("\n", " ").split(";")):
        for name, probability, magnitude in zip(pair[::3], pair[1::3], pair[2::3], strict=True):
            chance[number[name]] += float(probability) / 50
            strengths.setdefault(number[name], set()).add(round(float(table[0, number[name], int(magnitude)]), 4))
    chance[0] = 1 - chance.sum()
    counts = np.bincount(found[:, 0].astype(int), minlength=len(number))
    # Four deviations of 3000 draws.
    assert (np.abs(counts - 3000 * chance) <= 4 * np.sqrt(3000 * chance * (1 - chance)) + 1e-9).all()
    for operation, strength in found[found[:, 0] > 0]:
        assert round(abs(float(strength)), 4) in strengths[int(operation)]
    signed = found[np.isin(found[:, 0], range(1, 10)), 1]
    assert 0.4 < (signed[signed != 0] < 0).mean() < 0.6


def test_trivialaugment_draws_any_operation_at_any_strength(monkeypatch):
    found = drawn(monkeypatch, augment.trivial_augment(), (32, 64, 3))
    counts = np.bincount(found[:, 0].astype(int), minlength=14)
    assert np.abs(counts - 3000 / 14).max() < 4 * np.sqrt(3000 / 14 * 13 / 14)
    # The wide ranges of Müller and Hutter 2021: 32 pixels either way, whatever the size of the image.
    widest = {1: 0.99, 3: 32, 4: 32, 5: 135, 6: 0.99}
    for operation, most in widest.items():
        strengths = found[found[:, 0] == operation, 1]
        np.testing.assert_allclose([strengths.min(), strengths.max()], [-most, most], rtol=1e-5)
    assert set(found[found[:, 0] == auto.OPERATIONS.index("posterize"), 1]) == {2, 3, 4, 5, 6, 7, 8}
