"""Turns by any angle, against Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn.augment import random_rotation
from eqxcnn.augment.rotation import rotated
from eqxcnn.errors import InputError

TURN = jax.jit(rotated, static_argnums=2)
ANGLES = [0, 1, -3.3, 15, 30, 45, -60, 89.9, 90, -90, 135, 180, 200, 270, 359.5]


def noise(height, width, channels=3):
    return np.random.default_rng(0).random((height, width, channels), np.float32)


@pytest.mark.parametrize("size", [(12, 12), (7, 7), (13, 10), (9, 32)])
@pytest.mark.parametrize("fill", [0.0, 0.25])
def test_every_angle_is_that_of_pil(size, fill):
    image = noise(*size)
    for degrees in ANGLES:
        ours = TURN(image, jnp.float32(degrees), fill)
        for channel in range(3):
            pil = Image.fromarray(image[:, :, channel]).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
            np.testing.assert_allclose(ours[:, :, channel], np.asarray(pil), atol=1e-5, err_msg=f"{degrees} degrees")


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_levels_are_those_of_pil(channels):
    levels = np.round(noise(16, 11, channels) * 255).astype(np.uint8)
    picture = Image.fromarray(levels if channels == 3 else levels[:, :, 0])
    for degrees in ANGLES:
        pil = np.asarray(picture.rotate(degrees, Image.Resampling.BILINEAR)).reshape(levels.shape)
        ours = TURN(levels.astype(np.float32) / 255, jnp.float32(degrees), 0.0)
        # PIL rounds to whole levels.
        np.testing.assert_allclose(ours * 255, pil, atol=1.01, err_msg=f"{degrees} degrees")


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_of_a_square_move_its_pixels_to_the_bit(turns, side):
    image = noise(side, side)
    assert np.array_equal(TURN(image, jnp.float32(90 * turns), 0.5), np.rot90(image, turns))


def test_a_quarter_turn_leaves_empty_what_is_no_square():
    image = jnp.array([[[0.1], [0.2], [0.3], [0.4]], [[0.5], [0.6], [0.7], [0.8]]])
    expected = [[1, 0.3, 0.7, 1], [1, 0.2, 0.6, 1]]
    np.testing.assert_allclose(TURN(image, jnp.float32(90), 1.0)[:, :, 0], expected, atol=1e-6)


def test_by_hand():
    # Turned by 45 degrees, each pixel's middle comes from sqrt(1/2) pixels beside the middle, between two of the old:
    # at 1 + sqrt(1/2) pixels it has the outer one's row or column to half, and at the border's other side only that.
    image = jnp.array([[[0.0], [1.0]], [[0.0], [1.0]]])
    expected = [[0.5, 1], [0, 0.5]]
    np.testing.assert_allclose(TURN(image, jnp.float32(45), 0.0)[:, :, 0], expected, atol=1e-6)


def test_no_angle_is_no_change():
    image = noise(11, 14)
    assert np.array_equal(jax.jit(random_rotation(0))(image, jax.random.key(0)), image)


def test_angles_cover_their_range():
    # The middle of a slope, which turned by an angle falls along its cosine and sine.
    image = np.broadcast_to(np.linspace(0, 1, 21, dtype=np.float32)[None, :, None], (21, 21, 1))
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = np.asarray(jax.jit(jax.vmap(random_rotation(30), in_axes=(None, 0)))(image, keys))[..., 0]
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
        (lambda: random_rotation(5, fill=255), r"`fill` \(=255\) is a pixel in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
