"""What comes after the maps: flatten, dense layers and ReLU, on whole batches."""

from math import prod

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def dense_forward(
    x: Float[Array, "b i"], weight: Float[Array, "o i"], bias: Float[Array, " o"]
) -> tuple[Float[Array, "b o"], tuple[Float[Array, "b i"], Float[Array, "o i"]]]:
    """`x @ weight.T + bias`, and what `dense_backward` needs; a row of `weight` makes one output."""
    return x @ weight.T + bias, (x, weight)


def dense_backward(
    cache: tuple[Float[Array, "b i"], Float[Array, "o i"]], dy: Float[Array, "b o"]
) -> tuple[Float[Array, "b i"], Float[Array, "o i"], Float[Array, " o"]]:
    """The gradients `(dx, dweight, dbias)` of a loss whose gradient by the output is `dy`."""
    x, weight = cache
    return dy @ weight, dy.T @ x, dy.sum(0)


def relu_forward(x: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Bool[Array, "*n"]]:
    """`max(x, 0)`, and where `x` is positive."""
    return jnp.maximum(x, 0), x > 0


def relu_backward(is_positive: Bool[Array, "*n"], dy: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The gradient by the input: `dy` where the input was positive, else 0 (also at 0, where there is none)."""
    return jnp.where(is_positive, dy, 0)


def flatten_forward(x: Float[Array, "b *n"]) -> tuple[Float[Array, "b m"], tuple[int, ...]]:
    """One row an example, and the shape that was."""
    return x.reshape(x.shape[0], prod(x.shape[1:])), x.shape


def flatten_backward(shape: tuple[int, ...], dy: Float[Array, "b m"]) -> Float[Array, "b *n"]:
    """The gradient by the input: the same numbers in their old places."""
    return dy.reshape(shape)
