"""Stochastic depth, and helpers for networks with random layers."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from ..errors import InputError
from ..types import Key

__all__ = ["DropPath", "drop_path_rates", "keys_for"]


class DropPath(eqx.Module):
    """In training, drops the whole residual branch at random, independently for each example (Huang et al. 2016).

    The branch is kept with probability `1 - rate` and then divided by `1 - rate`, so its expectation is unchanged. Eval
    mode (`eqx.nn.inference_mode`) is the identity.

    **Arguments:**

    - `rate`: the probability of dropping, at least 0 and below 1.
    - `inference`: whether to start in eval mode.

    **Raises:** `InputError` for a `rate` out of range.
    """

    rate: float
    inference: bool

    def __init__(self, rate: float, inference: bool = False):
        if not 0 <= rate < 1:
            raise InputError(f"`rate` (={rate}) is a probability of dropping and must be at least 0 and below 1.")
        self.rate = rate
        self.inference = inference

    @jaxtyped(typechecker=beartype)
    def __call__(self, x: Float[Array, "*shape"], *, key: Key | None) -> Float[Array, "*shape"]:
        """Returns `x / (1 - rate)` or zeros; `x` itself in eval mode or at rate 0, where `key` may be `None`.

        **Raises:** `InputError` if a key is needed and `key` is `None`.
        """
        if self.inference or self.rate == 0:
            return x
        if key is None:
            raise InputError(
                f"`key` (=None) must be a random key while DropPath with `rate` (={self.rate}) is training: pass a "
                "key, or use eval mode (`eqx.nn.inference_mode`)."
            )
        keep = 1 - self.rate
        return jnp.where(jax.random.bernoulli(key, keep), x / keep, 0)


def drop_path_rates(rate: float | int, depth: int) -> list[float]:
    """Returns the rate of each of `depth` blocks, rising linearly from 0 to `rate` (Huang et al. 2016, section 3)."""
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


def keys_for(key: Key | None, count: int, *, used: bool = True) -> Sequence[Key | None]:
    """Splits `key` into `count` keys; returns `None` for each key if `key` is `None` or `used` is false.

    Splitting costs compile time, so a network whose random layers are all inactive passes `used=False`.
    """
    return [None] * count if key is None or not used else list(jax.random.split(key, count))
