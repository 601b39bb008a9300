"""Mixup and cutmix against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.augment import Mix, partners
from eqxcnn.errors import InputError

#: Image `i` shows `i + 1` everywhere, so that a mixed one tells what it is made of.
IMAGES = jnp.broadcast_to(jnp.arange(1.0, 401.0)[:, None, None, None], (400, 8, 12, 1))
BEFORE = np.roll(np.arange(1.0, 401.0), 1)


def mixed(*, images=IMAGES, seed=0, **settings):
    after, share = jax.jit(Mix(**settings))(images, jax.random.key(seed))
    return np.asarray(after), np.asarray(share)


def test_partners_are_the_ones_before():
    assert partners(jnp.array([5, 6, 7])).tolist() == [7, 5, 6]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_adds_two_images_in_shares_of_a_beta_distribution(alpha):
    after, share = mixed(mixup=alpha)
    expected = share * np.arange(1, 401) + (1 - share) * BEFORE
    np.testing.assert_allclose(after, np.broadcast_to(expected[:, None, None, None], after.shape), rtol=1e-5)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); four deviations of what 400 draws give.
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(variance / 400)
    assert share.var() == pytest.approx(variance, rel=0.3)


def test_cutmix_covers_a_box_and_counts_its_pixels():
    after, share = mixed(cutmix=1.0)
    own = after == np.arange(1, 401)[:, None, None, None]
    assert (own | (after == BEFORE[:, None, None, None])).all()
    np.testing.assert_allclose(share, own.mean((1, 2, 3)), rtol=1e-6)
    for covered in ~own[..., 0]:
        # A box: as many rows and columns as there are pixels for.
        assert covered.sum() == covered.any(1).sum() * covered.any(0).sum()
    # Boxes that reach over the border are cut off, so that more than half of an image stays its own on average.
    assert 0.5 < share.mean() < 0.75
    # A box has an even number of rows and columns: 6 of 8 and 10 of 12 at most.
    assert share.min() == pytest.approx(1 - 60 / 96)
    assert (share == 1).any()
    assert not (share == 1).all()


def test_a_box_of_the_drawn_area_around_any_pixel():
    from eqxcnn.augment.mix import _box

    keys = jax.random.split(jax.random.key(3), 500)
    covered = np.asarray(jax.vmap(lambda key: _box(key, (8, 12), jnp.float32(0.75)))(keys))
    # A quarter of the area: half of each side, which is 4 by 6 pixels where none is cut off.
    sizes = {(int(each.any(1).sum()), int(each.any(0).sum())) for each in covered}
    assert max(height for height, _ in sizes) == 4
    assert max(width for _, width in sizes) == 6
    # Around the first row and column there is room for half of it.
    assert min(height for height, _ in sizes) == 2
    assert min(width for _, width in sizes) == 3
    assert covered.any(0).all()


def test_a_switch_and_a_probability():
    after, share = mixed(mixup=1.0, cutmix=1.0, probability=0.8, switch=0.25)
    whole = (share == 1) & (after == np.arange(1, 401)[:, None, None, None]).all((1, 2, 3))
    is_flat = np.ptp(after, axis=(1, 2, 3)) == 0
    # A box that covers nothing leaves an image as it is, too.
    assert 0.12 < whole.mean() < 0.32
    assert 0.5 < (is_flat & ~whole).mean() < 0.7
    assert 0.1 < (~is_flat).mean() < 0.25


def test_images_are_mixed_otherwise_under_another_key():
    assert (mixed(mixup=1.0)[1] != mixed(mixup=1.0, seed=1)[1]).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of them above 0"),
        ({"mixup": -1.0}, r"`mixup` \(=-1.0\)"),
        ({"cutmix": 1.0, "probability": 2.0}, r"`probability` \(=2.0\) is a probability"),
        ({"cutmix": 1.0, "switch": -0.5}, r"`switch` \(=-0.5\) is a probability"),
    ],
)
def test_shares_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Mix(**settings)
