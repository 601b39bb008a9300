"""Rotations by any angle, compared with Pillow's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn.augment import random_rotation
from eqxcnn.augment.rotation import rotate_image
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
ROTATE = jit(rotate_image, static_argnums=2)
ANGLES = [0, 1, -3.3, 15, 30, 45, -60, 89.9, 90, -90, 135, 180, 200, 270, 359.5]


def noise(height, width, channels=3):
    return np.random.default_rng(0).random((height, width, channels), np.float32)


@pytest.mark.parametrize("size", [(12, 12), (7, 7), (9, 32)])
@pytest.mark.parametrize("fill", [0.0, 0.25])
def test_every_angle_equals_pillow(size, fill):
    image = noise(*size)
    for degrees in ANGLES:
        ours = ROTATE(image, jnp.float32(degrees), fill)
        for channel in range(3):
            pil = Image.fromarray(image[:, :, channel]).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
            np.testing.assert_allclose(ours[:, :, channel], np.asarray(pil), atol=1e-5, err_msg=f"{degrees} degrees")


@pytest.mark.parametrize("channels", [1, 3])
def test_integer_values_equal_pillow_up_to_rounding(channels):
    levels = np.round(noise(16, 11, channels) * 255).astype(np.uint8)
    picture = Image.fromarray(levels if channels == 3 else levels[:, :, 0])
    for degrees in ANGLES:
        pil = np.asarray(picture.rotate(degrees, Image.Resampling.BILINEAR)).reshape(levels.shape)
        ours = ROTATE(levels.astype(np.float32) / 255, jnp.float32(degrees), 0.0)
        # Pillow rounds to integers.
        np.testing.assert_allclose(ours * 255, pil, atol=1.01, err_msg=f"{degrees} degrees")


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_of_a_square_are_exact(turns, side):
    image = noise(side, side)
    assert np.array_equal(ROTATE(image, jnp.float32(90 * turns), 0.5), np.rot90(image, turns))


def test_a_quarter_turn_fills_the_empty_sides_of_a_rectangle():
    image = jnp.array([[[0.1], [0.2], [0.3], [0.4]], [[0.5], [0.6], [0.7], [0.8]]])
    expected = [[1, 0.3, 0.7, 1], [1, 0.2, 0.6, 1]]
    np.testing.assert_allclose(ROTATE(image, jnp.float32(90), 1.0)[:, :, 0], expected, atol=1e-6)


def test_45_degrees_by_hand():
    # At 45 degrees, each pixel's center comes from a point sqrt(1/2) pixels from the image's center, straight above,
    # below, left or right of it: the upper and lower ones average two columns, the others are on one column.
    image = jnp.array([[[0.0], [1.0]], [[0.0], [1.0]]])
    expected = [[0.5, 1], [0, 0.5]]
    np.testing.assert_allclose(ROTATE(image, jnp.float32(45), 0.0)[:, :, 0], expected, atol=1e-6)


def test_an_angle_of_0_changes_nothing():
    image = noise(11, 14)
    assert np.array_equal(jit(random_rotation(0))(image, jax.random.key(0)), image)


def test_angles_cover_their_range():
    # The slope at the center of a rotated ramp has the cosine and sine of the angle.
    image = np.broadcast_to(np.linspace(0, 1, 21, dtype=np.float32)[None, :, None], (21, 21, 1))
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = np.asarray(jit(jax.vmap(random_rotation(30), in_axes=(None, 0)))(image, keys))[..., 0]
    across, down = drawn[:, 10, 11] - drawn[:, 10, 9], drawn[:, 11, 10] - drawn[:, 9, 10]
    angles = np.degrees(np.arctan2(-down, across))
    assert -30 - 1e-3 < angles.min() < -29.5
    assert 29.5 < angles.max() < 30 + 1e-3
    # Four standard deviations of the mean of 1000 uniform draws.
    assert abs(angles.mean()) < 4 * 30 / 3000**0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_rotation(-5), r"`degrees` \(=-5\)"),
        (lambda: random_rotation(5, fill=255), r"`fill` \(=255\) of `random_rotation` must be from 0 to 1"),
    ],
)
def test_bad_arguments_are_rejected(make, message):
    with pytest.raises(InputError, match=message):
        make()
