"""Policies that apply random Pillow operations: AutoAugment for CIFAR-10, RandAugment, TrivialAugment."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..ranges import Range, check_arguments
from ..types import Augment, Image, Key
from . import pil

__all__ = ["OPERATIONS", "StrengthTable", "apply_operation", "auto_augment", "rand_augment", "trivial_augment"]

#: The names of the operations; the functions below take the index of an operation in this tuple.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip
#: Operations whose strength gets a random sign.
_SIGNED = OPERATIONS[1:10]
#: Number of magnitudes of RandAugment and TrivialAugment, from no effect to the strongest.
_BINS = 31

#: Cubuk et al. 2019 (arXiv:1805.09501), table 7: 25 pairs of operations. Each operation is followed by its
#: probability and its magnitude (0 to 9).
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
    """Applies AutoAugment's policy for CIFAR-10: one of 25 pairs of operations.

    The policy is table 7 of Cubuk et al. 2019 (arXiv:1805.09501). The ranges of strengths and the ten
    magnitudes are as in torchvision's `AutoAugmentPolicy.CIFAR10`.
    """
    pairs = [entry.split() for entry in _CIFAR10.replace("\n", " ").split(";")]
    operation = jnp.array([[OPERATIONS.index(name) for name in pair[::3]] for pair in pairs])
    probability = jnp.array([[float(value) for value in pair[1::3]] for pair in pairs])
    magnitude = jnp.array([[int(value) for value in pair[2::3]] for pair in pairs])

    def augment(image: Image, key: Key) -> Image:
        pair_key, *keys = jax.random.split(key, 3)
        table = StrengthTable(image.shape, 10, 0.3, 150 / 331, 30.0, 0.9, 4)
        pair = jax.random.randint(pair_key, (), 0, len(pairs))

        def step(levels: pil.Levels, at: int, key: Key) -> pil.Levels:
            coin, sign = jax.random.split(key)
            chosen = jnp.where(jax.random.bernoulli(coin, probability[pair, at]), operation[pair, at], 0)
            return apply_operation(levels, chosen, *table(chosen, magnitude[pair, at], sign))

        return _apply_to_levels(image, lambda levels: step(step(levels, 0, keys[0]), 1, keys[1]))

    return augment


@check_arguments
def rand_augment(
    operations: Annotated[int, Range(1, 20)] = 2, magnitude: Annotated[int, Range(0, _BINS - 1)] = 9
) -> Augment:
    """Applies RandAugment: several random operations out of 14 (Cubuk et al. 2020, arXiv:1909.13719, section 3).

    The ranges of strengths are as in torchvision's `RandAugment`.

    **Arguments:**

    - `operations`: the number of operations, drawn independently.
    - `magnitude`: the magnitude of all operations, from 0 (weakest) to 30 (strongest).
    """

    def augment(image: Image, key: Key) -> Image:
        table = StrengthTable(image.shape, _BINS, 0.3, 150 / 331, 30.0, 0.9, 4)

        def apply_all(levels: pil.Levels) -> pil.Levels:
            for step_key in jax.random.split(key, operations):
                operation_key, sign = jax.random.split(step_key)
                chosen = jax.random.randint(operation_key, (), 0, len(OPERATIONS) - 1)
                levels = apply_operation(levels, chosen, *table(chosen, jnp.int32(magnitude), sign))
            return levels

        return _apply_to_levels(image, apply_all)

    return augment


def trivial_augment() -> Augment:
    """Applies TrivialAugment in its wide form (Müller and Hutter 2021, arXiv:2103.10158, section 3).

    Applies one of 14 operations at one of 31 strengths, with the ranges of torchvision's `TrivialAugmentWide`.
    """

    def augment(image: Image, key: Key) -> Image:
        operation_key, magnitude_key, sign = jax.random.split(key, 3)
        height, width, _ = image.shape
        table = StrengthTable(image.shape, _BINS, 0.99, (32 / height, 32 / width), 135.0, 0.99, 6)
        chosen = jax.random.randint(operation_key, (), 0, len(OPERATIONS) - 1)
        drawn = table(chosen, jax.random.randint(magnitude_key, (), 0, _BINS), sign)
        return _apply_to_levels(image, lambda levels: apply_operation(levels, chosen, *drawn))

    return augment


class StrengthTable:
    """The strength and the matrix of each operation at each magnitude, for images of one shape.

    **Arguments:**

    - `shape`: the shape of the images, `(height, width, channels)`.
    - `bins`: the number of magnitudes, from no effect to the strongest.
    - `shear`, `shift`, `degrees`, `factor`, `bits`: the strengths at the largest magnitude. They are, in this order,
      the slope of a shear, the shift as a fraction of the image's sides (or a pair of fractions, for height and width),
      the angle of a rotation, the distance of a factor from 1, and the number of bits removed.
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
        # Shifts are truncated to whole pixels, as in torchvision.
        rows["translate_x"], rows["translate_y"] = (
            np.trunc(np.linspace(0, longest, bins)) for longest in (right * width, down * height)
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

        def fixed_matrix(name: str, strength: float) -> Int[np.ndarray, "6"]:
            return pil.fixed_matrix(matrices[name](strength) if name in matrices else (1, 0, 0, 0, 1, 0))

        # The matrices are computed while tracing, in Pillow's arithmetic, for each sign, operation and magnitude.
        self._matrices = jnp.asarray(
            [
                [[fixed_matrix(name, sign * strength) for strength in rows[name]] for name in OPERATIONS]
                for sign in (1, -1)
            ]
        )

    def __call__(
        self, operation: Int[Array, ""], magnitude: Int[Array, ""], key: Key
    ) -> tuple[Float[Array, ""], Int[Array, "6"]]:
        """Returns an operation's strength and matrix at a magnitude, with a random sign if the strength is signed."""
        has_sign = jnp.array([name in _SIGNED for name in OPERATIONS])[operation]
        sign = (jax.random.bernoulli(key) & has_sign).astype(int)
        return self._strengths[sign, operation, magnitude], self._matrices[sign, operation, magnitude]


def apply_operation(
    levels: pil.Levels, operation: Int[Array, ""], strength: Float[Array, ""], matrix: Int[Array, "6"]
) -> pil.Levels:
    """Applies one operation, an index into `OPERATIONS`, to an image of integers 0 to 255.

    **Arguments:**

    - `strength`: the operation's factor minus 1, number of bits to keep, or threshold; unused by other operations.
    - `matrix`: the fixed-point matrix for `pil.affine`.
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
    identity = jnp.broadcast_to(jnp.arange(256)[:, None], (256, channels))
    mapped = pil.apply_table(moved, jnp.select(_matches(operation, *tables), list(tables.values()), identity))
    is_color, is_sharpness = _matches(operation, "color", "sharpness")
    gray = jnp.broadcast_to(pil.gray(mapped)[:, :, None], mapped.shape)
    blended = pil.blend(jnp.where(is_color, gray, pil.smooth(mapped)), mapped, factor)
    return jnp.where(is_color | is_sharpness, blended, mapped)


def _matches(operation: Int[Array, ""], *names: str) -> list[Bool[Array, ""]]:
    return [operation == OPERATIONS.index(name) for name in names]


def _apply_to_levels(image: Image, function: Callable[[pil.Levels], pil.Levels]) -> Image:
    """Rounds an image in [0, 1] to integers 0 to 255, applies `function`, and scales the result back."""
    levels = jnp.round(image * 255).clip(0, 255).astype(jnp.int32)
    return function(levels).astype(image.dtype) / 255
