"""Mixup and CutMix compared with their definitions."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.augment import Mix, partners
from eqxcnn.augment.mix import _draw_box
from eqxcnn.errors import InputError

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
#: All pixels of image `i` are `i + 1`, so that a mixed pixel shows its two sources.
IMAGES = jnp.broadcast_to(jnp.arange(1.0, 401.0)[:, None, None, None], (400, 8, 12, 1))
BEFORE = np.roll(np.arange(1.0, 401.0), 1)


@cache
def compiled(**settings):
    return jit(Mix(**settings).__call__)


def mixed(*, seed=0, **settings):
    after, weight = compiled(**settings)(IMAGES, jax.random.key(seed))
    return np.asarray(after), np.asarray(weight)


def test_the_partner_is_the_image_before():
    assert partners(jnp.array([5, 6, 7])).tolist() == [7, 5, 6]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_averages_two_images_with_weights_of_a_beta_distribution(alpha):
    after, weight = mixed(mixup=alpha)
    expected = weight * np.arange(1, 401) + (1 - weight) * BEFORE
    np.testing.assert_allclose(after, np.broadcast_to(expected[:, None, None, None], after.shape), rtol=1e-5)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); four standard deviations of the mean of 400 draws.
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weight.mean() - 0.5) < 4 * np.sqrt(variance / 400)
    assert weight.var() == pytest.approx(variance, rel=0.3)


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    after, weight = mixed(cutmix=1.0)
    own = after == np.arange(1, 401)[:, None, None, None]
    assert (own | (after == BEFORE[:, None, None, None])).all()
    np.testing.assert_allclose(weight, own.mean((1, 2, 3)), rtol=1e-6)
    for covered in ~own[..., 0]:
        # A box: the number of pixels is rows times columns.
        assert covered.sum() == covered.any(1).sum() * covered.any(0).sum()
    # Boxes are clipped at the border, so that on average more than half of an image remains.
    assert 0.5 < weight.mean() < 0.75
    # A box has an even number of rows and columns: 6 of 8 and 10 of 12 at most.
    assert weight.min() == pytest.approx(1 - 60 / 96)
    assert (weight == 1).any()
    assert not (weight == 1).all()


def test_a_box_of_the_drawn_area_lies_around_a_random_pixel():
    keys = jax.random.split(jax.random.key(3), 500)
    covered = np.asarray(jit(jax.vmap(lambda key: _draw_box(key, (8, 12), jnp.float32(0.75))))(keys))
    # A quarter of the area: half of each side, which is 4 by 6 pixels before clipping.
    sizes = {(int(box.any(1).sum()), int(box.any(0).sum())) for box in covered}
    assert max(height for height, _ in sizes) == 4
    assert max(width for _, width in sizes) == 6
    # Around the first row and column, half of it is inside.
    assert min(height for height, _ in sizes) == 2
    assert min(width for _, width in sizes) == 3
    assert covered.any(0).all()


def test_both_probabilities():
    after, weight = mixed(mixup=1.0, cutmix=1.0, probability=0.8, switch_probability=0.25)
    whole = (weight == 1) & (after == np.arange(1, 401)[:, None, None, None]).all((1, 2, 3))
    is_flat = np.ptp(after, axis=(1, 2, 3)) == 0
    # An empty box also leaves an image unchanged.
    assert 0.12 < whole.mean() < 0.32
    assert 0.5 < (is_flat & ~whole).mean() < 0.7
    assert 0.1 < (~is_flat).mean() < 0.25


def test_another_key_mixes_differently():
    assert (mixed(mixup=1.0)[1] != mixed(mixup=1.0, seed=1)[1]).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "must not both be 0"),
        ({"mixup": -1.0}, r"`mixup` \(=-1.0\)"),
        ({"mixup": 1e-40}, r"`mixup` \(=1e-40\) must be 0 or at least 1e-06"),
        ({"cutmix": 1.0, "probability": 2.0}, r"`probability` \(=2.0\) must be from 0 to 1"),
        ({"cutmix": 1.0, "switch_probability": -0.5}, r"`switch_probability` \(=-0.5\) must be from 0 to 1"),
    ],
)
def test_bad_settings_are_rejected(settings, message):
    with pytest.raises(InputError, match=message):
        Mix(**settings)
