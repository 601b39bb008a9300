"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) with optax, and the rescaling of kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from optax.contrib import MuonDimensionNumbers, muon

from .factors import Factor, assign_factors

__all__ = ["Muon", "MuonLayers", "MuonOthers", "make_muon", "rescale_kernels"]

MuonLayers: TypeAlias = Literal["all", "convolutions"]
MuonOthers: TypeAlias = Literal["adam", "sgd"]


@dataclass(frozen=True)
class Muon:
    """Options of the Muon rule.

    - `momentum`: weight of past gradients in the Nesterov momentum.
    - `steps`: Newton-Schulz steps, which bring the momentum's singular values close to 1.
    - `coefficients`: a, b and c of a step, which maps a singular value s to a s + b s^3 + c s^5.
    - `layers`: `all` to update kernels and matrices, or `convolutions` to update only kernels.
    - `others`: rule of all other parameters: Adam with Nesterov momentum, or the SGD of `optimizer: sgd`.
    """

    momentum: float = 0.95
    steps: int = 5
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    layers: MuonLayers = "all"
    others: MuonOthers = "adam"

    def applies_to(self, param: Array) -> bool:
        """Returns whether Muon updates the parameter, and not the rule of the others."""
        return param.ndim == 4 or (param.ndim == 2 and self.layers == "all")


def make_muon(options: Muon, sgd: optax.GradientTransformation) -> optax.GradientTransformation:
    """Builds the rule for a learning rate of one; `sgd` updates the other parameters if `options` says so.

    An update of a kernel or matrix with more outputs than inputs is multiplied by sqrt(outputs / inputs).
    """

    def axes(params: PyTree) -> PyTree:
        """Returns the input and output axes of each matrix and kernel that Muon updates, else `None`.

        The input axes are `in` for a dense layer's `[out in]`, and `kh`, `kw` and `in` for a kernel `[kh kw in out]`.
        """
        known = {2: MuonDimensionNumbers((1,), (0,)), 4: MuonDimensionNumbers((0, 1, 2), (3,))}
        return jax.tree.map(lambda param: known[param.ndim] if options.applies_to(param) else None, params)

    # optax's Muon includes a learning rate and the minus sign of descent. `scale(-1)` undoes the sign, since the chain
    # of `make_optimizer` adds its own.
    rule = optax.chain(
        muon(
            1.0,
            ns_coeffs=options.coefficients,
            ns_steps=options.steps,
            beta=options.momentum,
            muon_weight_dimension_numbers=axes,
        ),
        optax.scale(-1),
    )
    if options.others == "adam":
        return rule
    return optax.partition(
        {"muon": rule, "sgd": sgd},
        lambda params: jax.tree.map(lambda param: "muon" if options.applies_to(param) else "sgd", params),
    )


def rescale_kernels(every: int, factors: Sequence[Factor], steps_per_epoch: float) -> optax.GradientTransformation:
    """Rescales each convolution kernel `[kh kw in out]` to the norm sqrt(out), together with an update.

    The kernel is rescaled first, and the update is added to the result, as in the code of airbench94's Muon variant.
    The rescaling does not depend on the learning rate. Frozen kernels stay unchanged.

    **Arguments:**

    - `every`: updates from one rescaling to the next; the first update rescales.
    - `factors`: the learning-rate factors, which say what is frozen and when.
    - `steps_per_epoch`: updates per epoch.
    """

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        def rescale(update: Array, param: Array, factor: Factor) -> Array:
            if param.ndim != 4 or not factor.value:
                return update
            # The lower bound keeps a kernel of zeros at zero.
            scale = param.shape[-1] ** 0.5 / jnp.maximum(jnp.sqrt(jnp.square(param).sum()), 1e-12)
            is_due = (state.count % every == 0) & (state.count < factor.epochs * steps_per_epoch)
            return update + jnp.where(is_due, (scale - 1) * param, 0).astype(update.dtype)

        rescaled = jax.tree.map(rescale, updates, params, assign_factors(factors, params))
        return rescaled, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
