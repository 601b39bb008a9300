"""Matrix products for dense layers and 1x1 convolutions; on a CPU, large products use oneDNN if it is available."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from ...cost import shape_of
from . import onednn
from .primitive import make_primitive

__all__ = ["MIN_MULTIPLY_ADDS", "matrix_product"]

#: Smaller products are left to XLA, because each oneDNN call has a fixed cost.
MIN_MULTIPLY_ADDS = 2**23


def matrix_product(
    left: Float[Array, "_ _"], right: Float[Array, "_ _"], transpose_left: bool = False, transpose_right: bool = False
) -> Float[Array, "m n"]:
    """Returns the float32 product of matrices `[m k]` and `[k n]`; differentiable any number of times.

    **Arguments:**

    - `transpose_left`: whether `left` is given as `[k m]`.
    - `transpose_right`: whether `right` is given as `[n k]`.
    """
    return _product.bind(left, right, transpose_left=transpose_left, transpose_right=transpose_right)


def _product_by_xla(left: Array, right: Array, *, transpose_left: bool, transpose_right: bool) -> Array:
    contracted = (0 if transpose_left else 1,), (1 if transpose_right else 0,)
    return lax.dot_general(left, right, (contracted, ((), ())))


def _product_on_cpu(
    left: Array, right: Array, *, transpose_left: bool, transpose_right: bool, uses_onednn: bool
) -> Array:
    by_xla = partial(_product_by_xla, transpose_left=transpose_left, transpose_right=transpose_right)
    out = jax.eval_shape(by_xla, left, right)
    if not uses_onednn or out.size * left.shape[0 if transpose_left else 1] < MIN_MULTIPLY_ADDS:
        return by_xla(left, right)
    settings = {"transpose_a": transpose_left, "transpose_b": transpose_right}
    return onednn.call_onednn("matmul", settings, out, left, right)


def _batch_product(operands: Sequence[Array], axes: Sequence[int | None], **parameters: bool) -> tuple[Array, int]:
    """The rule for `vmap`: stacks a batch of `left` matrices into one matrix; XLA computes all other cases."""
    left, right = operands
    if axes[1] is not None or parameters["transpose_left"]:
        return jax.vmap(partial(_product_by_xla, **parameters), in_axes=tuple(axes))(left, right), 0
    left = jnp.moveaxis(left, axes[0] or 0, 0)
    out = _product.bind(left.reshape(-1, left.shape[-1]), right, **parameters)
    # The last length is explicit, because `reshape` cannot infer a length (-1) for an empty batch.
    return out.reshape(*left.shape[:2], out.shape[-1]), 0


def _left_gradient(out: Array, left: Any, right: Array, *, transpose_left: bool, transpose_right: bool) -> Array:
    if transpose_left:
        return matrix_product(right, out, transpose_right, True)
    return matrix_product(out, right, False, not transpose_right)


def _right_gradient(out: Array, left: Array, right: Any, *, transpose_left: bool, transpose_right: bool) -> Array:
    if transpose_right:
        return matrix_product(out, left, True, transpose_left)
    return matrix_product(left, out, not transpose_left, False)


def _count_multiply_adds(equation: Any) -> int:
    left = shape_of(equation.invars[0])
    return prod(shape_of(equation.outvars[0])) * left[0 if equation.params["transpose_left"] else 1]


_product = make_primitive(
    "eqxcnn_matrix_product", _product_on_cpu, _product_by_xla, _batch_product, _count_multiply_adds
)
ad.defbilinear(_product, _left_gradient, _right_gradient)
