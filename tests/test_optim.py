import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.training import Recipe
from eqxcnn.training.optim import is_decayed, make_optimizer, make_schedule


def test_schedules_at_hand_worked_steps():
    constant = make_schedule(Recipe(schedule="constant", learning_rate=0.1), 100)
    assert (constant(0), constant(99)) == (0.1, 0.1)
    cosine = make_schedule(Recipe(schedule="cosine", learning_rate=0.1), 100)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [0.1, 0.05, 0.0], atol=1e-8)
    one_cycle = make_schedule(Recipe(schedule="one_cycle", learning_rate=0.1), 100)
    np.testing.assert_allclose([one_cycle(0), one_cycle(25)], [0.1 / 25, 0.1], rtol=1e-6)
    assert one_cycle(100) < 1e-4


def test_biases_and_scales_are_not_decayed():
    params = {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}
    assert is_decayed(params) == {"kernel": True, "bias": False}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_decay_shrinks_kernels_only(optimizer):
    recipe = Recipe(optimizer=optimizer, learning_rate=0.1, schedule="constant", weight_decay=0.5, momentum=0.0)
    update = make_optimizer(recipe, 10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update.update(zero, update.init(params), params)
    after = eqx.apply_updates(params, updates)
    np.testing.assert_allclose(after["kernel"], 0.95)  # 1 - 0.1 x 0.5
    np.testing.assert_array_equal(after["bias"], 1.0)


def test_sgd_with_momentum_is_the_textbook_update():
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, schedule="constant", momentum=0.9)
    update = make_optimizer(recipe, 10)
    params = jnp.array([1.0])
    state = update.init(params)
    for expected in (1 - 0.1, 1 - 0.1 - 0.19):  # velocities 1 and 1.9
        step, state = update.update(jnp.array([1.0]), state, params)
        params = params + step
        np.testing.assert_allclose(params, expected, rtol=1e-6)
