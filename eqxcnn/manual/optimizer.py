"""Gradient descent as a pair of functions, in optax's form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

__all__ = ["Optimizer", "sgd"]


class Optimizer(NamedTuple):
    """An update rule with the interface of `optax.GradientTransformation`.

    - `init(params) -> state`.
    - `update(gradients, state, params) -> (updates, state)`; add the updates to the parameters.
    """

    init: Callable[[PyTree], Any]
    update: Callable[..., tuple[PyTree, Any]]


def sgd(learning_rate: float) -> Optimizer:
    """Returns plain gradient descent: each update is `-learning_rate` times the gradient."""

    def init(params: PyTree) -> tuple[()]:
        return ()

    def update(gradients: PyTree, state: tuple[()], params: PyTree | None = None) -> tuple[PyTree, tuple[()]]:
        return jax.tree.map(lambda gradient: -learning_rate * gradient, gradients), state

    return Optimizer(init, update)
