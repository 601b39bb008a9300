"""Policies that draw from Pillow's operations: AutoAugment for CIFAR-10, RandAugment, TrivialAugment."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..errors import InputError
from ..types import Augment, Image, Key
from . import pil

#: The operations by name; each number below is one's place here.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip
#: Those whose strength has a sign, drawn by a coin.
_SIGNED = OPERATIONS[1:10]
#: Magnitudes of RandAugment and TrivialAugment, from none to the strongest.
_BINS = 31

#: Cubuk et al. 2019 (arXiv:1805.09501), table 7: 25 pairs of operation, probability and magnitude from 0 to 9.
_CIFAR10 = """
invert .1 7 contrast .2 6; rotate .7 2 translate_x .3 9; sharpness .8 1 sharpness .9 3; shear_y .5 8 translate_y .7
9; autocontrast .5 8 equalize .9 2; shear_y .2 7 posterize .3 7; color .4 3 brightness .6 7; sharpness .3 9
brightness .7 9; equalize .6 5 equalize .5 1; contrast .6 7 sharpness .6 5; color .7 7 translate_x .5 8; equalize .3
7 autocontrast .4 8; translate_y .4 3 sharpness .2 6; brightness .9 6 color .2 8; solarize .5 2 invert 0 3; equalize
.2 0 autocontrast .6 0; equalize .2 8 equalize .6 4; color .9 9 equalize .6 6; autocontrast .8 4 solarize .2 8;
brightness .1 3 color .7 0; solarize .4 5 autocontrast .9 3; translate_y .9 9 translate_y .7 9; autocontrast .9 2
solarize .8 3; equalize .8 8 invert .1 3; translate_y .7 9 autocontrast .9 1
"""


def auto_augment() -> Augment:
    """AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501, table 7): one of 25 pairs of operations.

    Its ranges are those of torchvision's `AutoAugmentPolicy.CIFAR10`, with ten magnitudes.
    """
    pairs = [entry.split() for entry in _CIFAR10.replace("\n", " ").split(";")]
    operation = jnp.array([[OPERATIONS.index(name) for name in pair[::3]] for pair in pairs])
    chance = jnp.array([[float(each) for each in pair[1::3]] for pair in pairs])
    magnitude = jnp.array([[int(each) for each in pair[2::3]] for pair in pairs])

    def change(image: Image, key: Key) -> Image:
        pair_key, *keys = jax.random.split(key, 3)
        strengths = Strengths(image.shape, 10, 0.3, 150 / 331, 30.0, 0.9, 4)
        pair = jax.random.randint(pair_key, (), 0, len(pairs))

        def step(levels: pil.Levels, at: int, key: Key) -> pil.Levels:
            coin, sign = jax.random.split(key)
            chosen = jnp.where(jax.random.bernoulli(coin, chance[pair, at]), operation[pair, at], 0)
            return apply(levels, chosen, *strengths(chosen, magnitude[pair, at], sign))

        return _on_levels(image, lambda levels: step(step(levels, 0, keys[0]), 1, keys[1]))

    return change


def rand_augment(operations: int = 2, magnitude: int = 9) -> Augment:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719, section 3): so many of 14 operations, one after the other.

    Ranges are those of torchvision's `RandAugment`.

    **Arguments:**

    - `operations`: how many, each any of the 14.
    - `magnitude`: how strong all are, from 0 to 30.
    """
    if operations < 1 or not 0 <= magnitude < _BINS:
        raise InputError(
            f"`operations` (={operations}) must be 1 or more, and `magnitude` (={magnitude}) from 0 to {_BINS - 1}"
        )

    def change(image: Image, key: Key) -> Image:
        strengths = Strengths(image.shape, _BINS, 0.3, 150 / 331, 30.0, 0.9, 4)

        def all_of(levels: pil.Levels) -> pil.Levels:
            for each in jax.random.split(key, operations):
                which, sign = jax.random.split(each)
                chosen = jax.random.randint(which, (), 0, len(OPERATIONS) - 1)
                levels = apply(levels, chosen, *strengths(chosen, jnp.int32(magnitude), sign))
            return levels

        return _on_levels(image, all_of)

    return change


def trivial_augment() -> Augment:
    """TrivialAugment, its wide form (Müller and Hutter 2021, arXiv:2103.10158, section 3).

    Any of 14 operations at any of 31 strengths, whose ranges are those of torchvision's `TrivialAugmentWide`.
    """

    def change(image: Image, key: Key) -> Image:
        which, strong, sign = jax.random.split(key, 3)
        height, width, _ = image.shape
        strengths = Strengths(image.shape, _BINS, 0.99, (32 / height, 32 / width), 135.0, 0.99, 6)
        chosen = jax.random.randint(which, (), 0, len(OPERATIONS) - 1)
        drawn = strengths(chosen, jax.random.randint(strong, (), 0, _BINS), sign)
        return _on_levels(image, lambda levels: apply(levels, chosen, *drawn))

    return change


class Strengths:
    """What an operation's magnitudes stand for, for images of one shape: from none to the strongest.

    **Arguments:**

    - `shape`: of the images, `(height, width, channels)`.
    - `bins`: how many magnitudes there are.
    - `shear`, `shift`, `degrees`, `factor`, `bits`: the strongest: a slope, a share of the sides (one of the height and
      one of the width where it is a pair), an angle, what a factor has more than 1, and bits taken away.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bins: int,
        shear: float,
        shift: float | tuple[float, float],
        degrees: float,
        factor: float,
        bits: int,
    ):
        height, width, _ = shape
        down, right = shift if isinstance(shift, tuple) else (shift, shift)
        rows = dict.fromkeys(OPERATIONS, np.zeros(bins))
        rows |= {name: np.linspace(0, factor, bins) for name in ("brightness", "color", "contrast", "sharpness")}
        rows |= {name: np.linspace(0, shear, bins) for name in ("shear_x", "shear_y")}
        # Whole pixels, cut off towards none, as torchvision has them.
        rows["translate_x"], rows["translate_y"] = (
            np.trunc(np.linspace(0, each, bins)) for each in (right * width, down * height)
        )
        rows["rotate"] = np.linspace(0, degrees, bins)
        rows["posterize"] = 8 - np.round(np.arange(bins) / ((bins - 1) / bits))
        rows["solarize"] = np.linspace(255, 0, bins)
        signed = [[sign * rows[name] for name in OPERATIONS] for sign in (1, -1)]
        self._strengths = jnp.asarray(signed, jnp.float32)
        matrices = {
            "shear_x": lambda s: (1, s, 0, 0, 1, 0), "shear_y": lambda s: (1, 0, 0, s, 1, 0),
            "translate_x": lambda s: (1, 0, s, 0, 1, 0), "translate_y": lambda s: (1, 0, 0, 0, 1, s),
            "rotate": lambda s: pil.rotation(s, height, width),
        }  # fmt: skip

        def fixed(name: str, strength: float) -> Int[np.ndarray, "6"]:
            return pil.fixed_matrix(matrices[name](strength) if name in matrices else (1, 0, 0, 0, 1, 0))

        # While tracing, in Pillow's own arithmetic: the matrices of both signs, every operation and magnitude.
        self._matrices = jnp.asarray(
            [[[fixed(name, sign * each) for each in rows[name]] for name in OPERATIONS] for sign in (1, -1)]
        )

    def __call__(
        self, operation: Int[Array, ""], magnitude: Int[Array, ""], key: Key
    ) -> tuple[Float[Array, ""], Int[Array, "6"]]:
        """An operation's strength at a magnitude, negative half of the time where it can be, and its matrix."""
        has_sign = jnp.array([name in _SIGNED for name in OPERATIONS])[operation]
        sign = (jax.random.bernoulli(key) & has_sign).astype(int)
        return self._strengths[sign, operation, magnitude], self._matrices[sign, operation, magnitude]


def apply(
    levels: pil.Levels, operation: Int[Array, ""], strength: Float[Array, ""], matrix: Int[Array, "6"]
) -> pil.Levels:
    """One operation, by its place in `OPERATIONS`, on an image of whole numbers 0 to 255.

    **Arguments:**

    - `strength`: what a factor has more than 1, bits left, or a threshold, where it is such an operation.
    - `matrix`: where pixels come from, for `pil.affine`.
    """
    channels, factor = levels.shape[2], 1 + strength
    moved = pil.affine(levels, matrix)
    tables = {
        "brightness": pil.brightness(factor, channels),
        "contrast": pil.contrast(moved, factor),
        "posterize": pil.posterize(strength.astype(jnp.int32), channels),
        "solarize": pil.solarize(strength, channels),
        "autocontrast": pil.autocontrast(moved),
        "equalize": pil.equalize(moved),
        "invert": pil.invert(channels),
    }
    same = jnp.broadcast_to(jnp.arange(256)[:, None], (256, channels))
    valued = pil.looked_up(moved, jnp.select(_is_one_of(operation, *tables), list(tables.values()), same))
    is_color, is_sharpness = _is_one_of(operation, "color", "sharpness")
    gray = jnp.broadcast_to(pil.gray(valued)[:, :, None], valued.shape)
    blended = pil.blend(jnp.where(is_color, gray, pil.smooth(valued)), valued, factor)
    return jnp.where(is_color | is_sharpness, blended, valued)


def _is_one_of(operation: Int[Array, ""], *names: str) -> list[Bool[Array, ""]]:
    return [operation == OPERATIONS.index(name) for name in names]


def _on_levels(image: Image, change: Callable[[pil.Levels], pil.Levels]) -> Image:
    """A change of whole numbers 0 to 255 on an image in [0, 1]: what is between them is rounded first."""
    levels = jnp.round(image * 255).clip(0, 255).astype(jnp.int32)
    return change(levels).astype(image.dtype) / 255
