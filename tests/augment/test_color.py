"""Color augmentations compared with their definitions, `colorsys` and Pillow."""

import colorsys
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from eqxcnn.augment import brightness, color_jitter, random_brightness, random_contrast, random_hue, random_saturation
from eqxcnn.augment import color as color_module
from eqxcnn.augment.color import jitter_color
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEYS = jax.random.split(jax.random.key(0), 1000)


def noise(height, width, channels=3):
    return jnp.asarray(np.random.default_rng(0).random((height, width, channels), np.float32))


def changed(augment, image, key=KEYS[0]):
    return np.asarray(jit(augment)(image, key))


def over_keys(augment, image):
    """The augmented image for each of `KEYS`, `[keys h w c]`."""
    return np.asarray(jit(jax.vmap(augment, in_axes=(None, 0)))(image, KEYS))


def row(*pixels):
    return jnp.array([pixels], jnp.float32)


def test_brightness_adds_and_clips():
    image = row([0.0, 0.25, 0.9])
    np.testing.assert_allclose(changed(brightness(0.42), image), row([0.42, 0.67, 1.0]), atol=1e-6)
    np.testing.assert_allclose(changed(brightness(-0.2), image), row([0.0, 0.05, 0.7]), atol=1e-6)


def test_random_brightness_adds_one_number_per_image():
    image = jnp.full((2, 2, 3), 0.5)
    added = over_keys(random_brightness(0.3), image) - 0.5
    assert np.ptp(added, axis=(1, 2, 3)).max() == 0
    added = added[:, 0, 0, 0]
    assert -0.3 - 1e-6 < added.min() < -0.29
    assert 0.29 < added.max() < 0.3 + 1e-6
    # Four standard deviations of the mean of 1000 uniform draws.
    assert abs(added.mean()) < 4 * 0.3 / 3000**0.5


def test_contrast_scales_around_the_mean_per_channel():
    image = row([0.2, 0.5, 0.9], [0.4, 0.5, 0.5])
    halved = row([0.25, 0.5, 0.8], [0.35, 0.5, 0.6])
    np.testing.assert_allclose(changed(random_contrast(0.5, 0.5), image), halved, atol=1e-6)
    doubled = row([0.1, 0.5, 1.0], [0.5, 0.5, 0.3])
    np.testing.assert_allclose(changed(random_contrast(2, 2), image), doubled, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.3, 50.0])
def test_saturation_scales_the_hsv_saturation(factor):
    image = noise(6, 7)
    ours = changed(random_saturation(factor, factor), image)

    def saturate(pixel):
        h, s, v = colorsys.rgb_to_hsv(*(float(each) for each in pixel))
        return colorsys.hsv_to_rgb(h, min(1, s * factor), v)

    np.testing.assert_allclose(ours, np.apply_along_axis(saturate, -1, image), atol=1e-5)


def test_hue_shifts_the_hsv_hue():
    image = noise(6, 7)
    key = KEYS[3]
    # Pure red shows the drawn angle.
    red, green, blue = changed(random_hue(0.5), row([1.0, 0.0, 0.0]), key)[0, 0]
    angle = colorsys.rgb_to_hsv(red, green, blue)[0]
    assert 0.05 < angle < 0.95

    def turn(pixel):
        h, s, v = colorsys.rgb_to_hsv(*(float(each) for each in pixel))
        return colorsys.hsv_to_rgb((h + angle) % 1, s, v)

    np.testing.assert_allclose(changed(random_hue(0.5), image, key), np.apply_along_axis(turn, -1, image), atol=1e-5)


def test_hue_covers_its_range():
    shifted = over_keys(random_hue(0.1), row([1.0, 0.0, 0.0]))[:, 0, 0]
    angles = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in shifted])
    angles = np.where(angles > 0.5, angles - 1, angles)
    assert -0.1 - 1e-6 < angles.min() < -0.095
    assert 0.095 < angles.max() < 0.1 + 1e-6


@pytest.mark.parametrize("factory", [random_saturation, random_contrast])
def test_factors_cover_their_range(factory):
    image = row([0.5, 0.4, 0.4], [0.5, 0.6, 0.6])
    results = over_keys(factory(0.5, 1.5), image)
    factors = np.ptp(results, axis=(1, 2, 3)) / 0.2 if factory is random_contrast else (0.5 - results[:, 0, 0, 1]) / 0.1
    assert 0.5 - 1e-5 < factors.min() < 0.51
    assert 1.49 < factors.max() < 1.5 + 1e-5


JITTER = jit(jitter_color)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_each_change_of_the_jitter_equals_pillow(place, factor, channels):
    image = noise(9, 8, channels)
    levels = np.round(np.asarray(image) * 255).astype(np.uint8)
    picture = Image.fromarray(levels if channels == 3 else levels[:, :, 0])
    theirs = np.asarray(ENHANCERS[place](picture).enhance(factor)).reshape(levels.shape)
    ours = JITTER(jnp.asarray(levels, jnp.float32) / 255, jnp.ones(3).at[place].set(factor), None, 0)
    # Pillow rounds the mean gray and the result to integers.
    np.testing.assert_allclose(ours * 255, theirs, atol=1.01 + abs(1 - factor))


def apply_by_definition(image, operation, amount):
    """Applies torchvision's definition of one operation: brightness, contrast, saturation, hue."""
    if operation == 3:
        return np.apply_along_axis(lambda pixel: shift_pixel_hue(pixel, amount), -1, image)
    gray = image @ [0.299, 0.587, 0.114]
    base = (0, gray.mean(), gray[:, :, None])[operation]
    return (amount * image + (1 - amount) * base).clip(0, 1)


def shift_pixel_hue(pixel, delta):
    h, s, v = colorsys.rgb_to_hsv(*(float(each) for each in pixel))
    return colorsys.hsv_to_rgb((h + delta) % 1, s, v)


def test_the_jitter_has_all_orders_of_four_changes():
    image, amounts = noise(5, 4), (1.3, 0.6, 1.5, -0.2)
    expected = []
    for order in itertools.permutations(range(4)):
        after = np.asarray(image, np.float64)
        for operation in order:
            after = apply_by_definition(after, operation, amounts[operation])
        expected.append(after)
    numbers = []
    for order in range(24):
        ours = np.asarray(JITTER(image, jnp.array(amounts[:3]), jnp.float32(amounts[3]), order))
        distance = np.abs(ours - np.stack(expected)).max((1, 2, 3))
        assert distance.min() < 1e-5
        numbers.append(distance.argmin())
    assert sorted(numbers) == list(range(24))


def test_the_draws_of_the_jitter(monkeypatch):
    def drawn(image, factors, delta, order):
        return jnp.stack([*factors, delta, order.astype(jnp.float32)])[:, None, None]

    monkeypatch.setattr(color_module, "jitter_color", drawn)
    draws = over_keys(color_jitter(0.4, 1.5, 0.2, hue=0.1), noise(5, 1, 1))[:, :, 0, 0].T
    for values, (low, high) in zip(draws, [(0.6, 1.4), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)], strict=False):
        margin = 0.01 * (high - low)
        assert low - 1e-6 <= values.min() < low + margin
        assert high - margin < values.max() <= high + 1e-6
    # Orders are equally likely within five standard deviations, and all draws are uncorrelated.
    assert abs(np.bincount(draws[4].astype(int), minlength=24) - 1000 / 24).max() < 5 * (1000 / 24) ** 0.5
    assert abs(np.corrcoef(draws) - np.eye(5)).max() < 5 / 1000**0.5


def test_a_jitter_without_spans_changes_nothing_and_one_of_brightness_only_that():
    assert np.array_equal(changed(color_jitter(), noise(5, 4)), noise(5, 4))
    factors = over_keys(color_jitter(brightness=0.5), jnp.full((2, 2, 3), 0.25)) / 0.25
    assert np.ptp(factors, axis=(1, 2, 3)).max() == 0
    assert 0.5 - 1e-6 < factors.min() < 0.51
    assert 1.49 < factors.max() < 1.5 + 1e-6


@pytest.mark.parametrize(
    "augment", [random_saturation(0.0, 2.0), random_hue(0.5), color_jitter(saturation=1), color_jitter(hue=0.5)]
)
def test_gray_has_no_saturation_and_no_hue(augment):
    image = noise(4, 4, 1).at[0, 0].set(0).at[1, 1].set(1)
    np.testing.assert_array_equal(changed(augment, image), image)
    gray = np.repeat(image, 3, -1)
    np.testing.assert_allclose(changed(augment, gray), gray, atol=1e-6)
    with pytest.raises(InputError, match="4 channels has no hue"):
        jax.eval_shape(augment, noise(4, 4, 4), KEYS[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: brightness(42), r"`delta` \(=42\)"),
        (lambda: random_brightness(-0.1), r"`max_delta` \(=-0.1\)"),
        (lambda: random_contrast(1.5, 0.5), r"`lower` \(=1.5\) must not be above `upper` \(=0.5\)"),
        (lambda: random_saturation(-1, 1), r"`lower` \(=-1\)"),
        (lambda: random_hue(0.6), r"`max_delta` \(=0.6\)"),
        (lambda: color_jitter(-0.1), r"`brightness` \(=-0.1\)"),
        (lambda: color_jitter(contrast=-1), r"`contrast` \(=-1\)"),
        (lambda: color_jitter(saturation=-1), r"`saturation` \(=-1\)"),
        (lambda: color_jitter(hue=0.6), r"`hue` \(=0.6\)"),
        (lambda: color_jitter(hue=-0.1), r"`hue` \(=-0.1\)"),
    ],
)
def test_bad_arguments_are_rejected(make, message):
    with pytest.raises(InputError, match=message):
        make()
