"""Compares our versions of Pillow's operations with Pillow, and the policies made of them with the papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from eqxcnn import augment
from eqxcnn.augment import auto, pil
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)
#: Noise, a ramp of few values, a single color, and a gray image.
IMAGES = {
    "noise": RNG.integers(0, 256, (13, 10, 3), np.uint8),
    "ramp": (np.arange(13)[:, None, None] * 2 + np.arange(10)[None, :, None] + np.arange(3) * 40).astype(np.uint8),
    "flat": np.full((13, 10, 3), 77, np.uint8),
    "gray": RNG.integers(30, 200, (9, 12, 1), np.uint8),
}
ENHANCERS = {
    "brightness": ImageEnhance.Brightness, "color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}  # fmt: skip
INDEX = {name: index for index, name in enumerate(auto.OPERATIONS)}
APPLY = jit(jax.vmap(auto.apply_operation, in_axes=(None, 0, 0, 0)))
#: The magnitudes to test, by their number.
MAGNITUDES = {10: range(10), 31: (0, 1, 2, 7, 8, 9, 14, 15, 16, 23, 28, 29, 30)}


def to_pillow(image):
    return Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])


def apply_pillow(name, image, strength):
    before = to_pillow(image)
    matrices = {
        "shear_x": (1, strength, 0, 0, 1, 0), "shear_y": (1, 0, 0, strength, 1, 0),
        "translate_x": (1, 0, strength, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, strength),
    }  # fmt: skip
    if name in matrices:
        after = before.transform(before.size, Image.Transform.AFFINE, matrices[name])
    elif name in ENHANCERS:
        after = ENHANCERS[name](before).enhance(1 + strength)
    else:
        after = {
            "identity": lambda: before,
            "rotate": lambda: before.rotate(strength),
            "posterize": lambda: ImageOps.posterize(before, int(strength)),
            "solarize": lambda: ImageOps.solarize(before, strength),
            "autocontrast": lambda: ImageOps.autocontrast(before),
            "equalize": lambda: ImageOps.equalize(before),
            "invert": lambda: ImageOps.invert(before),
        }[name]()
    return np.asarray(after).reshape(image.shape)


@pytest.mark.parametrize("kind", IMAGES)
def test_every_operation_equals_pillow_at_every_strength(kind):
    image = IMAGES[kind]
    names, strengths, matrices = [], [], []
    for bins, magnitudes in MAGNITUDES.items():
        table = auto.StrengthTable(image.shape, bins, 0.99, (0.6, 0.4), 135.0, 0.9, 4)
        for name in auto.OPERATIONS:
            for sign in (0, 1) if name in auto._SIGNED else (0,):
                names += [name] * len(magnitudes)
                strengths.append(table._strengths[sign, INDEX[name], np.array(magnitudes)])
                matrices.append(table._matrices[sign, INDEX[name], np.array(magnitudes)])
    operations = np.array([INDEX[name] for name in names])
    strengths = np.concatenate(strengths)
    found = np.asarray(APPLY(jnp.asarray(image, jnp.int32), operations, strengths, np.concatenate(matrices)))
    for name, strength, ours in zip(names, strengths.astype(np.float64), found, strict=True):
        # Removes the rounding to float32.
        theirs = apply_pillow(name, image, round(strength, 6) if name not in ENHANCERS else strength)
        if name == "autocontrast" or name in ENHANCERS:
            # Rounding may differ.
            assert np.abs(ours - theirs).max() <= 1, (name, strength)
            assert (ours != theirs).mean() < (0.2 if name == "autocontrast" else 0.05), (name, strength)
        elif name in ("rotate", "shear_x", "shear_y"):
            # Pillow gets the strength rounded to float32, our matrix is computed in float64.
            assert (ours != theirs).mean() < 0.01, (name, strength)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} {strength}")


@pytest.mark.parametrize("degrees", [0.0, 17.0, -45.0, 90.0, 135.0])
@pytest.mark.parametrize("kind", ["noise", "gray"])
def test_matrices_equal_pillow_exactly(kind, degrees):
    image = IMAGES[kind]
    height, width, _ = image.shape
    affine = jit(pil.affine)
    for matrix, theirs in (
        (pil.rotation(degrees, height, width), to_pillow(image).rotate(degrees)),
        (
            (1, degrees / 100, 0, 0, 1, 0),
            to_pillow(image).transform((width, height), 0, (1, degrees / 100, 0, 0, 1, 0)),
        ),
        ((1, 0, 0, -0.013, 1, 0.4), to_pillow(image).transform((width, height), 0, (1, 0, 0, -0.013, 1, 0.4))),
    ):
        ours = affine(jnp.asarray(image, jnp.int32), jnp.asarray(pil.fixed_matrix(matrix)))
        np.testing.assert_array_equal(ours, np.asarray(theirs).reshape(image.shape))


@pytest.mark.parametrize("size", [(13, 10), (3, 3), (2, 10), (13, 2)])
def test_smoothing_equals_pillow(size):
    image = IMAGES["noise"][: size[0], : size[1]]
    theirs = np.asarray(to_pillow(image).filter(ImageFilter.SMOOTH))
    np.testing.assert_array_equal(pil.smooth(jnp.asarray(image, jnp.int32)), theirs)


def test_autoaugments_table_is_complete():
    pairs = [entry.split() for entry in auto._CIFAR10.replace("\n", " ").split(";")]
    assert len(pairs) == 25
    assert all(len(pair) == 6 and {pair[0], pair[3]} <= set(auto.OPERATIONS) for pair in pairs)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("rand_augment(0)", r"`operations` \(=0\) of `rand_augment` must be from 1 to 20"),
        ("rand_augment(2, 31)", r"`magnitude` \(=31\) of `rand_augment` must be from 0 to 30"),
        ("rand_augment(2, -1)", r"`magnitude` \(=-1\) of `rand_augment` must be from 0 to 30"),
        ("random_erasing(2)", r"`p` \(=2\) of `random_erasing` must be from 0 to 1"),
        (
            "random_erasing(scale=(0.5, 0.2))",
            r"`scale` \(=\(0.5, 0.2\)\) must give the smallest value before the largest",
        ),
        (
            "random_erasing(ratio=(0, 1))",
            r"`ratio` \(=\(0, 1\)\) .* must be from 0.001 to 1000 in every item .item 1 is 0",
        ),
    ],
)
def test_bad_arguments_are_rejected(entry, message):
    with pytest.raises(InputError, match=message):
        augment.build([entry])


def test_strengths_by_hand():
    """Hand-worked strengths for images of 331 x 662 pixels, with tables of 31, 2 and 10 magnitudes."""
    wide = auto.StrengthTable((331, 662, 3), 31, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths[0]
    expected = {
        "identity": 0, "shear_x": 0.09, "shear_y": 0.09, "translate_x": 90, "translate_y": 45, "rotate": 9,
        "brightness": 0.27, "color": 0.27, "contrast": 0.27, "sharpness": 0.27, "posterize": 7, "solarize": 178.5,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(wide[INDEX[name], 9], value, rtol=1e-6, err_msg=name)
    # 10 % and 20 % of the sides are 33.1 and 132.4 pixels, which are truncated.
    pair = auto.StrengthTable((331, 662, 3), 2, 0.3, (0.1, 0.2), 30.0, 0.9, 4)._strengths
    assert [pair[0, INDEX[name], 1].item() for name in ("translate_x", "translate_y")] == [132, 33]
    ten = auto.StrengthTable((331, 662, 3), 10, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths
    assert [int(ten[0, INDEX["posterize"], bin_]) for bin_ in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert [float(ten[sign, INDEX["shear_y"], 9]) for sign in (0, 1)] == pytest.approx([0.3, -0.3])
    assert (ten[0, INDEX["solarize"], 0], ten[0, INDEX["solarize"], 9]) == (255, 0)


def drawn(monkeypatch, change, shape, count=3000):
    """Returns the operation and the strength in each call of `apply_operation`, for `count` keys: `[count calls 2]`."""
    seen = []

    def record(levels, operation, strength, matrix):
        seen.append(jnp.stack([operation.astype(jnp.float32), strength]))
        return levels

    def draw(key):
        seen.clear()
        change(jnp.zeros(shape), key)
        return jnp.stack(seen)

    monkeypatch.setattr(auto, "apply_operation", record)
    return np.asarray(jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count)))


def test_autoaugment_draws_pairs_with_their_probabilities_and_strengths(monkeypatch):
    found = drawn(monkeypatch, augment.auto_augment(), (20, 30, 3), 1500)
    assert found.shape == (1500, 2, 2)
    found = found.reshape(-1, 2)
    probability, strengths = np.zeros(len(INDEX)), {}
    table = auto.StrengthTable((20, 30, 3), 10, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths
    for pair in (entry.split() for entry in auto._CIFAR10.replace("\n", " ").split(";")):
        for name, chance, magnitude in zip(pair[::3], pair[1::3], pair[2::3], strict=True):
            probability[INDEX[name]] += float(chance) / 50
            strengths.setdefault(INDEX[name], set()).add(round(float(table[0, INDEX[name], int(magnitude)]), 4))
    probability[0] = 1 - probability.sum()
    counts = np.bincount(found[:, 0].astype(int), minlength=len(INDEX))
    # Four standard deviations of 3000 draws.
    deviation = np.sqrt(3000 * probability * (1 - probability))
    assert (np.abs(counts - 3000 * probability) <= 4 * deviation + 1e-9).all()
    for operation, strength in found[found[:, 0] > 0]:
        assert round(abs(float(strength)), 4) in strengths[int(operation)]
    signed = found[np.isin(found[:, 0], range(1, 10)), 1]
    assert 0.4 < (signed[signed != 0] < 0).mean() < 0.6


def test_randaugment_draws_operations_independently_at_one_strength(monkeypatch):
    found = drawn(monkeypatch, augment.rand_augment(2, 9), (331, 662, 3), 1400)
    assert found.shape == (1400, 2, 2)
    first, second = found[:, :, 0].astype(int).T
    # Five standard deviations of 1400 draws with probability 1/14, and of their coincidence.
    for operations in (first, second):
        assert np.abs(np.bincount(operations, minlength=14) - 100).max() < 5 * np.sqrt(100 * 13 / 14)
    assert abs((first == second).sum() - 100) < 5 * np.sqrt(100 * 13 / 14)
    table = auto.StrengthTable((331, 662, 3), 31, 0.3, 150 / 331, 30.0, 0.9, 4)._strengths[0]
    np.testing.assert_allclose(np.abs(found[:, :, 1]), np.asarray(table)[found[:, :, 0].astype(int), 9], rtol=1e-6)


def test_trivialaugment_draws_any_operation_at_any_strength(monkeypatch):
    found = drawn(monkeypatch, augment.trivial_augment(), (32, 64, 3))
    assert found.shape == (3000, 1, 2)
    found = found[:, 0]
    counts = np.bincount(found[:, 0].astype(int), minlength=14)
    assert len(counts) == 14
    assert np.abs(counts - 3000 / 14).max() < 4 * np.sqrt(3000 / 14 * 13 / 14)
    # The wide ranges of Müller and Hutter 2021: 32 pixels in either direction for images of any size.
    widest = {1: 0.99, 2: 0.99, 3: 32, 4: 32, 5: 135, 6: 0.99}
    for operation, most in widest.items():
        strengths = found[found[:, 0] == operation, 1]
        np.testing.assert_allclose([strengths.min(), strengths.max()], [-most, most], rtol=1e-5)
    assert set(found[found[:, 0] == INDEX["posterize"], 1]) == {2, 3, 4, 5, 6, 7, 8}
