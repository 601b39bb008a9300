"""Cutout and random erasing erase exactly the boxes that their definitions prescribe."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.augment import build, cutout, random_erasing
from eqxcnn.augment.erase import box_mask
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEYS = jax.random.split(jax.random.key(0), 3000)


@cache
def cutout_masks(size, height, width):
    """Returns a mask of the pixels that cutout fills, for each of `KEYS`: `[keys h w]`."""
    image = jnp.full((height, width, 2), 0.25)
    out = np.asarray(jit(jax.vmap(cutout(size, fill=0.75), in_axes=(None, 0)))(image, KEYS))
    assert set(np.unique(out)) <= {0.25, 0.75}
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    return out[..., 0] == 0.75


@pytest.mark.parametrize(
    ("size", "first", "last"),
    # The first and last row and column around pixel 2.
    [(1, 2, 2), (2, 1, 2), (3, 1, 3), (4, 0, 3), (5, 0, 4)],
)
def test_a_square_of_odd_or_even_side_lies_around_its_center(size, first, last):
    masks = cutout_masks(size, 5, 7)
    expected = np.zeros((5, 7), bool)
    expected[first : last + 1, first : last + 1] = True
    assert (masks == expected).all((1, 2)).any()
    # Around the corner at the top left, the square has the rows and columns from its center on.
    corners = masks[masks[:, 0, 0]]
    smallest = corners[corners.sum((1, 2)).argmin()]
    assert smallest.sum() == (last - 1) ** 2
    # Around the corner at the bottom right, it has those up to its center.
    corners = masks[masks[:, -1, -1]]
    assert corners.sum((1, 2)).min() == (3 - first) ** 2


@pytest.mark.parametrize("size", [1, 4])
def test_a_square_around_every_pixel_is_clipped_at_the_border(size):
    height, width = 5, 7
    expected = set()
    for y in range(height):
        for x in range(width):
            mask = np.zeros((height, width), bool)
            top, left = y - size // 2, x - size // 2
            mask[max(top, 0) : top + size, max(left, 0) : left + size] = True
            expected.add(mask.tobytes())
    assert {mask.tobytes() for mask in cutout_masks(size, height, width)} == expected


def test_every_center_is_equally_likely():
    frequency = cutout_masks(1, 5, 7).mean(0)
    # Five standard deviations of the mean of 3,000 draws.
    assert np.abs(frequency - 1 / 35).max() < 5 * (1 / 35 * 34 / 35 / 3000) ** 0.5


def test_a_recipe_can_name_it():
    augment = build(["cutout(8)"])
    assert augment is not None
    out = jit(augment)(jnp.zeros((8, 8, 3)), KEYS[0])
    assert out.shape == (8, 8, 3)
    assert out.max() == 0.5


def test_a_box_mask():
    expected = np.zeros((3, 4), bool)
    expected[1:3, 2:3] = True
    assert np.array_equal(box_mask(3, 4, jnp.array([1, 2]), jnp.array([2, 1])), expected)
    assert np.array_equal(box_mask(3, 4, jnp.array([1, 2]), jnp.array([5, 1])), expected)
    assert np.array_equal(box_mask(3, 4, jnp.array([-1, -1]), jnp.array([2, 1])), np.zeros((3, 4)))
    assert box_mask(3, 4, jnp.array([-1, -1]), jnp.array([2, 2])).sum() == 1


def erase(image, *arguments, **options):
    augment = jax.vmap(random_erasing(*arguments, **options), in_axes=(None, 0))
    return np.asarray(jit(augment)(image, KEYS[:400]))


def test_erasing_replaces_a_box_of_the_drawn_area():
    after = erase(jnp.full((40, 30, 2), 0.5), 0.7, scale=(0.1, 0.2), ratio=(0.5, 2.0))
    is_erased = (after != 0.5).all(-1)
    boxes = is_erased[is_erased.any((1, 2))]
    assert abs(len(boxes) / 400 - 0.7) < 4 * np.sqrt(0.21 / 400)
    rows, columns = boxes.any(2).sum(1), boxes.any(1).sum(1)
    area = boxes.sum((1, 2))
    assert (area == rows * columns).all()
    # Sides are truncated to whole pixels.
    assert (0.1 * 1200 - rows - columns < area).all()
    assert (area <= 0.2 * 1200).all()
    assert (rows / columns > 0.4).all()
    assert (rows / columns < 2.3).all()
    assert (rows / columns).max() > 1.7
    assert (rows / columns).min() < 0.6
    noise = after[is_erased]
    assert abs(noise.mean() - 0.5) < 0.01
    assert noise.std() == pytest.approx(np.sqrt(1 / 12), rel=0.05)


def test_the_ratio_of_an_erased_box_is_height_over_width():
    after = erase(jnp.full((40, 40, 1), 0.5), 1.0, scale=(0.125, 0.125), ratio=(2.0, 2.0), noise=False)
    # 200 pixels are 20 rows of 10.
    is_erased = (after == 0)[..., 0]
    assert set(is_erased.any(2).sum(1)) <= {19, 20}
    assert set(is_erased.any(1).sum(1)) <= {9, 10}


def test_erasing_with_black_reaches_every_pixel():
    after = erase(jnp.full((6, 5, 1), 0.5), 1.0, noise=False)
    assert set(np.unique(after)) == {0.0, 0.5}
    assert (after == 0).any(0).all()


def test_no_box_that_fits_leaves_the_image_unchanged():
    # A box of the whole area is as wide as the image or wider, whatever its ratio.
    after = erase(jnp.full((4, 4, 1), 0.5), 1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), noise=False)
    assert (after == 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"`size` \(=0\)"),
        ({"size": 5000}, r"must be from 1 to 4096"),
        ({"size": 3, "fill": 1.5}, r"`fill` \(=1.5\)"),
    ],
)
def test_bad_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        cutout(**arguments)
