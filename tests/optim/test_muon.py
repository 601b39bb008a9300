"""Compares Muon and the rescaling of kernels with NumPy in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.optim.muon import Muon
from eqxcnn.training import Recipe
from eqxcnn.training.builders import build_optimizer

from .test_optimizers import run_optimizer

COEFFICIENTS = (3.4576, -4.7391, 2.0843)
RECIPE = Recipe(
    optimizer="muon", muon_momentum=0.6, muon_steps=3, muon_coefficients=COEFFICIENTS, muon_layers="convolutions",
    muon_others="sgd", momentum=0.8, nesterov=True, schedule="constant", learning_rate=0.2,
)  # fmt: skip


def orthogonalize(kernel):
    """Three Newton-Schulz steps on the matrix of a kernel `[kh kw in out]`, with one row per output."""
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    matrix = matrix / np.linalg.norm(matrix)
    a, b, c = COEFFICIENTS
    for _ in range(3):
        gram = matrix @ matrix.T
        matrix = a * matrix + (b * gram + c * gram @ gram) @ matrix
    return matrix.T.reshape(kernel.shape)


def rescale(kernel):
    return kernel * np.sqrt(kernel.shape[-1]) / np.linalg.norm(kernel)


def make_case(steps):
    rng = np.random.default_rng(0)
    shapes = {"conv": {"weight": (3, 3, 4, 6)}, "norm": {"bias": (6,)}, "head": {"weight": (5, 6)}}

    def draw():
        return jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=lambda leaf: type(leaf) is tuple)

    return draw(), [draw() for _ in range(steps)]


def assert_close(actual, expected):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5), actual, expected)


def test_kernels_follow_muon_and_all_other_parameters_sgd():
    start, gradients = make_case(3)
    recipe = RECIPE.replace(
        rescale_kernels_every=2, learning_rate_factors=("conv=0.5", "*bias=3", "head=7"), weight_decay=0.1,
        decay_norms_and_biases=True,
    )  # fmt: skip
    history = run_optimizer(recipe, *jax.tree.map(jnp.float32, (start, gradients)))
    params, mean, velocity = start, 0.0, {"norm": 0.0, "head": 0.0}
    for step, (gradient, after) in enumerate(zip(gradients, history, strict=True)):
        kernel, slope = params["conv"]["weight"], gradient["conv"]["weight"]
        mean = 0.6 * mean + 0.4 * slope
        # Nesterov momentum, with both parts corrected for their start at zero as in NAdam (Dozat 2016).
        ahead = 0.6 * mean / (1 - 0.6 ** (step + 2)) + 0.4 * slope / (1 - 0.6 ** (step + 1))
        # The decay is not multiplied by the factor; the kernel is rescaled before both are subtracted.
        shrink = 0.2 * 0.1 * kernel
        new = {
            "conv": {"weight": (kernel if step == 1 else rescale(kernel)) - 0.2 * 0.5 * orthogonalize(ahead) - shrink}
        }
        for layer, name, factor in (("norm", "bias", 3), ("head", "weight", 7)):
            param = params[layer][name]
            slope = gradient[layer][name] + 0.1 / factor * param
            velocity[layer] = 0.8 * velocity[layer] + slope
            new[layer] = {name: param - 0.2 * factor * (slope + 0.8 * velocity[layer])}
        assert_close(after, new)
        params = new


def test_matrices_follow_muon_too_unless_only_convolutions_do():
    start, gradients = make_case(1)
    (after,) = run_optimizer(RECIPE.replace(muon_layers="all"), *jax.tree.map(jnp.float32, (start, gradients)))
    step = orthogonalize(gradients[0]["head"]["weight"].T).T
    assert_close(after["head"]["weight"], start["head"]["weight"] - 0.2 * step)
    assert [Muon(layers=layers).applies_to(jnp.zeros((2, 3))) for layers in ("all", "convolutions")] == [True, False]


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_rescaled_kernels_keep_their_norm_with_any_rule(optimizer):
    start, gradients = make_case(2)
    recipe = Recipe(optimizer=optimizer, schedule="constant", learning_rate=1e-6, rescale_kernels_every=1)
    history = run_optimizer(recipe, *jax.tree.map(jnp.float32, (start, gradients)))
    for after in history:
        np.testing.assert_allclose(np.linalg.norm(after["conv"]["weight"]), np.sqrt(6), rtol=1e-4)
        np.testing.assert_allclose(after["head"]["weight"], start["head"]["weight"], atol=1e-4)


def test_rescaling_is_not_scaled_by_the_plateau_the_factors_or_the_layers():
    start, gradients = make_case(4)
    recipe = Recipe(
        optimizer="sgd", momentum=0.0, schedule="plateau", patience_epochs=1, decay_rate=0.1, learning_rate=1e-9,
        learning_rate_factors=("conv=3",), layer_decay=0.5, rescale_kernels_every=1,
    )  # fmt: skip
    optimizer = build_optimizer(recipe, 4, 1)
    params, gradients = jax.tree.map(jnp.float32, (start, gradients))
    state = optimizer.init(params)
    for gradient in gradients:
        # The loss stays the same, so the plateau lowers the learning rate.
        doubled = jax.tree.map(lambda param: 2 * param, params)
        updates, state = optimizer.update(gradient, state, doubled, value=jnp.float32(1))
        params = eqx.apply_updates(doubled, updates)
        np.testing.assert_allclose(np.linalg.norm(params["conv"]["weight"]), np.sqrt(6), rtol=1e-5)


def test_frozen_and_empty_kernels_are_not_rescaled():
    recipe = Recipe(
        optimizer="sgd", schedule="constant", learning_rate=0.1, rescale_kernels_every=1,
        learning_rate_factors=("frozen=0", "later=1 for 0.5 epochs"),
    )  # fmt: skip
    start = {name: jnp.ones((1, 1, 2, 3)) for name in ("frozen", "later")} | {"empty": jnp.zeros((1, 1, 2, 3))}
    zeros = jax.tree.map(jnp.zeros_like, start)
    first, second = run_optimizer(recipe, start, [zeros, zeros])
    for after in (first, second):
        np.testing.assert_array_equal(after["frozen"], 1)
        np.testing.assert_array_equal(after["empty"], 0)
    np.testing.assert_allclose(first["later"], np.sqrt(3 / 6), rtol=1e-6)
    np.testing.assert_array_equal(second["later"], first["later"])
