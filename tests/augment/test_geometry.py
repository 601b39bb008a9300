"""Flips, rotations by 90 degrees and crops compared with their definitions, NumPy and Pillow."""

import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn.augment import random_crop, random_flip_horizontal, random_flip_vertical, random_resized_crop, random_rot90
from eqxcnn.augment.geometry import random_box, resized_crop
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEYS = jax.random.split(jax.random.key(0), 400)


def grid(*rows):
    return jnp.array(rows, jnp.float32)[:, :, None]


def noise(height, width, channels=3):
    return jnp.asarray(np.random.default_rng(0).random((height, width, channels), np.float32))


def over_keys(augment, image):
    """The augmented image for each of `KEYS`, `[keys h w c]`."""
    return np.asarray(jit(jax.vmap(augment, in_axes=(None, 0)))(image, KEYS))


@pytest.mark.parametrize(
    ("factory", "expected"),
    [(random_flip_horizontal, [[3, 2, 1], [6, 5, 4]]), (random_flip_vertical, [[4, 5, 6], [1, 2, 3]])],
)
def test_flip(factory, expected):
    image = grid([1, 2, 3], [4, 5, 6])
    flip = jit(factory(p=1.0))
    assert jnp.array_equal(flip(image, KEYS[0]), grid(*expected))
    assert jnp.array_equal(flip(flip(image, KEYS[0]), KEYS[1]), image)
    assert jnp.array_equal(jit(factory(p=0.0))(image, KEYS[0]), image)


@pytest.mark.parametrize("factory", [random_flip_horizontal, random_flip_vertical])
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_flip_happens_with_probability_p(factory, p):
    flipped = over_keys(factory(p=p), grid([1, 2], [3, 4]))[:, 0, 0, 0] != 1
    # Four standard deviations of the mean of 400 draws.
    assert abs(flipped.mean() - p) < 4 * (p * (1 - p) / 400) ** 0.5


def test_flips_reject_a_bad_probability():
    with pytest.raises(InputError, match=r"`p` \(=1.5\)"):
        random_flip_horizontal(p=1.5)


def test_rot90_draws_all_four_rotations():
    image = noise(5, 5)
    rotated = over_keys(random_rot90(), image)
    which = [next(k for k in range(4) if np.array_equal(each, np.rot90(image, k))) for each in rotated]
    assert min(np.bincount(which, minlength=4)) > 100 - 4 * 75**0.5


def test_rot90_rejects_images_that_are_not_square():
    with pytest.raises(InputError, match="square images, not 4 x 6"):
        random_rot90()(jnp.zeros((4, 6, 3)), KEYS[0])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_draws_every_window_of_the_padded_image(mode):
    image = noise(4, 3)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode)
    windows = [padded[top : top + 4, left : left + 3] for top in range(3) for left in range(3)]
    crops = over_keys(random_crop(1, mode), image)
    which = [next(i for i, window in enumerate(windows) if np.array_equal(crop, window)) for crop in crops]
    assert min(np.bincount(which, minlength=9)) > 400 / 9 - 4 * (400 / 9) ** 0.5


def test_crop_rejects_bad_arguments():
    with pytest.raises(InputError, match=r"`padding` \(=-1\)"):
        random_crop(-1)
    with pytest.raises(InputError, match=r"`mode` \(='mirror'\).*'reflect'"):
        random_crop(1, "mirror")
    with pytest.raises(InputError, match=r"`padding` \(=5\) must be at most the image's height and width \(4, 3\)"):
        random_crop(5, "edge")(noise(4, 3), KEYS[0])
    with pytest.raises(InputError, match=r"`padding` \(=3\) must be less than.*\(4, 3\)"):
        random_crop(3, "reflect")(jnp.zeros((4, 3, 1)), KEYS[0])


# The last box lies between pixels.
BOXES = [(0, 0, 24, 32), (3, 5, 12, 16), (0, 0, 1, 1), (20, 29, 4, 3), (2, 0, 20, 32), (0.5, 1.25, 9.75, 30.5)]


RESIZE = jit(resized_crop)


@pytest.mark.parametrize("box", BOXES)
def test_resized_crop_equals_pillow(box):
    top, left, height, width = box
    edges = (left, top, left + width, top + height)
    image = np.asarray(noise(24, 32))
    ours = RESIZE(image, jnp.array(box, jnp.float32))
    for channel in range(3):
        pil = Image.fromarray(image[:, :, channel]).resize((32, 24), Image.Resampling.BILINEAR, box=edges)
        np.testing.assert_allclose(ours[:, :, channel], np.asarray(pil), atol=2e-5)

    pixels = np.round(image * 255).astype(np.uint8)
    ours = RESIZE(pixels.astype(np.float32) / 255, jnp.array(box, jnp.float32))
    pil = Image.fromarray(pixels).resize((32, 24), Image.Resampling.BILINEAR, box=edges)
    # Pillow rounds to integers twice, once per axis.
    np.testing.assert_allclose(ours * 255, np.asarray(pil), atol=1.01)


def test_resized_crop_by_hand():
    # New centers are at 1.25, 1.75, 2.25 and 2.75 pixels from the left, old ones at 0.5, 1.5, 2.5 and 3.5.
    row = RESIZE(grid([0, 8, 16, 0]), jnp.array([0, 1, 1, 2]))
    assert jnp.array_equal(row, grid([6, 10, 14, 12]))


def boxes(height, width, scale, ratio):
    draw = jax.vmap(lambda key: random_box(key, height, width, scale, ratio))
    return np.asarray(jit(draw)(jax.random.split(jax.random.key(1), 4000)))


def draw_torchvision_box(rng, height, width, scale, ratio):
    """Draws a box as torchvision's `RandomResizedCrop` does; fails if none of ten boxes fits into the image."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    raise AssertionError


def test_boxes_are_drawn_as_torchvision_draws_them():
    height, width = 24, 40
    rng = random.Random(0)
    theirs = np.array([draw_torchvision_box(rng, height, width, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(4000)])
    ours = boxes(height, width, (0.08, 1), (3 / 4, 4 / 3))
    error = (ours.var(0) / 4000 + theirs.var(0) / 4000) ** 0.5
    assert (abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    assert (abs(ours.std(0) - theirs.std(0)) < 4 * error).all()


def test_boxes_keep_their_bounds():
    top, left, height, width = boxes(64, 48, (0.3, 0.6), (0.5, 0.8)).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 64).all()
    assert (left + width <= 48).all()
    # Each side is rounded by up to half a pixel.
    assert (height * width >= 0.3 * 64 * 48 - (height + width) / 2).all()
    assert (height * width <= 0.6 * 64 * 48 + (height + width) / 2).all()
    assert ((width + 0.5) / (height - 0.5) >= 0.5).all()
    assert ((width - 0.5) / (height + 0.5) <= 0.8).all()


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [((8, 32), (3 / 4, 4 / 3), (0, 10, 8, 11)), ((32, 8), (3 / 4, 4 / 3), (10, 0, 11, 8))],
)
def test_the_centered_box_is_taken_when_no_draw_fits(size, ratio, expected):
    assert (boxes(*size, (1, 1), ratio) == expected).all()


def test_random_resized_crop_crops_at_the_box():
    # A quarter of a 2 x 2 image is one pixel; its neighbor towards the center has a weight of 1/4.
    corners = over_keys(random_resized_crop((0.25, 0.25), (1, 1)), grid([0, 8], [16, 24]))
    expected = [[[0, 2], [4, 6]], [[6, 8], [10, 12]], [[12, 14], [16, 18]], [[18, 20], [22, 24]]]
    assert np.unique(corners[..., 0], axis=0).tolist() == expected


def test_random_resized_crop_resizes_to_its_size():
    # The whole image is the only box.
    image = np.random.default_rng(0).integers(0, 256, (12, 18, 3)).astype(np.uint8)
    (small,) = over_keys(random_resized_crop((1, 1), (1.5, 1.5), size=(4, 6)), jnp.asarray(image, jnp.float32))[:1]
    expected = np.asarray(Image.fromarray(image).resize((6, 4), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(small, expected, atol=1.01)  # Pillow rounds rows, then columns.


def test_random_resized_crop_rejects_bad_arguments():
    with pytest.raises(InputError, match=r"`scale` \(=\(0.8, 1.2\)\)"):
        random_resized_crop(scale=(0.8, 1.2))
    with pytest.raises(InputError, match=r"`ratio` \(=\(2.0, 1.0\)\) must give the smallest value before"):
        random_resized_crop(ratio=(2, 1))
    with pytest.raises(InputError, match=r"`size` \(=\(0, 8\)\)"):
        random_resized_crop(size=(0, 8))
