import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.augment import build, cutout
from eqxcnn.errors import InputError

KEYS = jax.random.split(jax.random.key(0), 3000)


def squares(size, height, width):
    """Which pixels are blanked under each of `KEYS`, `[keys h w]`."""
    image = jnp.full((height, width, 2), 0.25)
    out = np.asarray(jax.jit(jax.vmap(cutout(size, fill=0.75), in_axes=(None, 0)))(image, KEYS))
    assert set(np.unique(out)) <= {0.25, 0.75}
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    return out[..., 0] == 0.75


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_square_around_each_pixel_cut_at_the_border(size):
    height, width = 5, 7
    expected = set()
    for y in range(height):
        for x in range(width):
            mask = np.zeros((height, width), bool)
            top, left = y - size // 2, x - size // 2
            mask[max(top, 0) : top + size, max(left, 0) : left + size] = True
            expected.add(mask.tobytes())
    assert {mask.tobytes() for mask in squares(size, height, width)} == expected


def test_every_center_is_as_likely():
    share = squares(1, 4, 5).mean(0)
    # Five standard deviations of the mean of 3,000 draws.
    assert np.abs(share - 1 / 20).max() < 5 * (0.05 * 0.95 / 3000) ** 0.5


def test_a_recipe_can_name_it():
    change = build(["cutout(8)"])
    assert change is not None
    out = change(jnp.zeros((8, 8, 3)), KEYS[0])
    assert out.shape == (8, 8, 3)
    assert out.max() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"), [({"size": 0}, r"`size` \(=0\)"), ({"size": 3, "fill": 1.5}, r"`fill` \(=1.5\)")]
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        cutout(**arguments)
