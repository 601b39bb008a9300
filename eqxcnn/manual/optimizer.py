"""Gradient descent, as a pair of functions that a training step calls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree


class Optimizer(NamedTuple):
    """How gradients become updates; the same pair of functions as an optax optimizer, so it can stand in for one.

    - `init(params) -> state`.
    - `update(gradients, state, params) -> (updates, state)`; the updates are to be added to the parameters.
    """

    init: Callable[[PyTree], Any]
    update: Callable[..., tuple[PyTree, Any]]


def sgd(learning_rate: float) -> Optimizer:
    """Plain gradient descent: every parameter moves by `-learning_rate` times its gradient."""

    def init(params: PyTree) -> tuple[()]:
        return ()

    def update(gradients: PyTree, state: tuple[()], params: PyTree | None = None) -> tuple[PyTree, tuple[()]]:
        return jax.tree.map(lambda gradient: -learning_rate * gradient, gradients), state

    return Optimizer(init, update)
