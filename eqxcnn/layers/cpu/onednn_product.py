"""Products of matrices by oneDNN on a CPU, for dense layers and convolutions by kernels of one pixel."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from . import onednn

#: Multiply-adds from which on a call is worth what it costs beforehand.
_LARGE = 2**23


def product(
    left: Float[Array, "_ _"], right: Float[Array, "_ _"], left_turned: bool = False, right_turned: bool = False
) -> Float[Array, "m n"]:
    """`left @ right` of matrices `[m k]` and `[k n]` in float32; differentiable as often.

    **Arguments:**

    - `left_turned`, `right_turned`: whether `left` is `[k m]`, and `right` `[n k]`.
    """
    return _product.bind(left, right, left_turned=left_turned, right_turned=right_turned)


def _by_xla(left: Array, right: Array, *, left_turned: bool, right_turned: bool) -> Array:
    return lax.dot_general(left, right, (((0 if left_turned else 1,), (1 if right_turned else 0,)), ((), ())))


def _by_onednn(left: Array, right: Array, *, left_turned: bool, right_turned: bool) -> Array:
    plain = partial(_by_xla, left_turned=left_turned, right_turned=right_turned)
    out = jax.eval_shape(plain, left, right)
    if out.size * left.shape[0 if left_turned else 1] < _LARGE:
        return plain(left, right)
    return onednn.call("matmul", {"transpose_a": left_turned, "transpose_b": right_turned}, out, left, right)


def _batched(operands: Sequence[Array], axes: Sequence[int | None], **how: Any) -> tuple[Array, int]:
    """The rule of `vmap`: more rows on the left, or else what XLA makes of it."""
    left, right = operands
    if axes[1] is not None or how["left_turned"]:
        return jax.vmap(partial(_by_xla, **how), in_axes=tuple(axes))(left, right), 0
    left = jnp.moveaxis(left, axes[0] or 0, 0)
    out = _product.bind(left.reshape(-1, left.shape[-1]), right, **how)
    return out.reshape(*left.shape[:2], -1), 0


def _to_left(out: Array, left: Any, right: Array, *, left_turned: bool, right_turned: bool) -> Array:
    if left_turned:
        return product(right, out, right_turned, True)
    return product(out, right, False, not right_turned)


def _to_right(out: Array, left: Array, right: Any, *, left_turned: bool, right_turned: bool) -> Array:
    if right_turned:
        return product(out, left, True, left_turned)
    return product(left, out, not left_turned, False)


_product = onednn.primitive("onednn_product", _by_xla, _by_onednn, _batched)
ad.defbilinear(_product, _to_left, _to_right)
