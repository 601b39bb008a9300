"""Dense layers, ReLU and flatten on a batch, and their gradients."""

from math import prod

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["dense_backward", "dense_forward", "flatten_backward", "flatten_forward", "relu_backward", "relu_forward"]


def dense_forward(
    x: Float[Array, "b i"], weight: Float[Array, "o i"], bias: Float[Array, " o"]
) -> tuple[Float[Array, "b o"], tuple[Float[Array, "b i"], Float[Array, "o i"]]]:
    """Returns `x @ weight.T + bias` and the cache for `dense_backward`; each row of `weight` computes one output."""
    return x @ weight.T + bias, (x, weight)


def dense_backward(
    cache: tuple[Float[Array, "b i"], Float[Array, "o i"]], dy: Float[Array, "b o"]
) -> tuple[Float[Array, "b i"], Float[Array, "o i"], Float[Array, " o"]]:
    """Returns the gradients `(dx, dweight, dbias)` of the loss, given its gradient `dy` with respect to the output."""
    x, weight = cache
    return dy @ weight, dy.T @ x, dy.sum(0)


def relu_forward(x: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Bool[Array, "*n"]]:
    """Returns `max(x, 0)` and the cache for `relu_backward`, a mask of the positive values."""
    return jnp.maximum(x, 0), x > 0


def relu_backward(is_positive: Bool[Array, "*n"], dy: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns the gradient with respect to the input: `dy` where the input was positive, else 0.

    At 0, where ReLU has no derivative, the gradient is 0, as for `jax.nn.relu`.
    """
    return jnp.where(is_positive, dy, 0)


def flatten_forward(x: Float[Array, "b *n"]) -> tuple[Float[Array, "b m"], tuple[int, ...]]:
    """Returns one row per example, and the cache for `flatten_backward`: the shape of `x`."""
    return x.reshape(x.shape[0], prod(x.shape[1:])), x.shape


def flatten_backward(shape: tuple[int, ...], dy: Float[Array, "b m"]) -> Float[Array, "b *n"]:
    """Returns the gradient with respect to the input: `dy` reshaped to the input's shape."""
    return dy.reshape(shape)
