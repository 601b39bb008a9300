import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.training import Recipe
from eqxcnn.training.optim import is_decayed, make_optimizer, make_schedule, schedule_shape


def test_schedules_at_hand_worked_steps():
    constant = make_schedule(Recipe(schedule="constant", learning_rate=0.1), 100)
    assert (constant(0), constant(99)) == (0.1, 0.1)
    cosine = make_schedule(Recipe(schedule="cosine", learning_rate=0.1), 100)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [0.1, 0.05, 0.0], atol=1e-8)
    one_cycle = make_schedule(Recipe(schedule="one_cycle", learning_rate=0.1), 100)
    np.testing.assert_allclose([one_cycle(0), one_cycle(25)], [0.1 / 25, 0.1], rtol=1e-6)
    assert one_cycle(100) < 1e-4


def test_warm_up_and_fall_by_hand():
    shape = {"learning_rate": 2.0, "warmup_share": 0.23, "first_factor": 0.2, "last_factor": 0.07}
    linear = make_schedule(Recipe(schedule="linear", **shape), 100)
    found = [linear(step) for step in (0, 10, 23, 50, 100)]
    expected = [0.4, 0.4 + 1.6 * 10 / 23, 2.0, 2.0 - 1.86 * 27 / 77, 0.14]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    cosine = make_schedule(Recipe(schedule="cosine", **shape), 100)
    found = [cosine(step) for step in (10, 23, 23 + 77 / 2, 100)]
    np.testing.assert_allclose(found, [expected[1], 2.0, (2.0 + 0.14) / 2, 0.14], rtol=1e-6)
    rising = make_schedule(Recipe(schedule="constant", learning_rate=2.0, warmup_share=0.5), 10)
    np.testing.assert_allclose([rising(step) for step in (0, 1, 5, 9)], [0, 0.4, 2, 2], rtol=1e-6)


def test_what_a_recipe_leaves_open_follows_the_schedule():
    assert schedule_shape(Recipe(schedule="linear", last_factor=0.1)) == {
        "warmup_share": 0.0,
        "first_factor": 0.0,
        "last_factor": 0.1,
    }
    assert schedule_shape(Recipe(schedule="one_cycle"))["warmup_share"] == 0.25


def test_biases_and_scales_are_not_decayed():
    assert is_decayed(jnp.ones((3, 3, 1, 2)))
    assert not is_decayed(jnp.ones(2))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_decay_shrinks_kernels_only(optimizer):
    recipe = Recipe(optimizer=optimizer, learning_rate=0.1, schedule="constant", weight_decay=0.5, momentum=0.0)
    update = make_optimizer(recipe, 10, 5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update.update(zero, update.init(params), params)
    after = eqx.apply_updates(params, updates)
    np.testing.assert_allclose(after["kernel"], 0.95)  # 1 - 0.1 x 0.5
    np.testing.assert_array_equal(after["bias"], 1.0)


def test_sgd_with_momentum_is_the_textbook_update():
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, schedule="constant", momentum=0.9)
    update = make_optimizer(recipe, 10, 5)
    params = jnp.array([1.0])
    state = update.init(params)
    for expected in (1 - 0.1, 1 - 0.1 - 0.19):  # velocities 1 and 1.9
        step, state = update.update(jnp.array([1.0]), state, params)
        params = params + step
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def trajectory(recipe, params, gradients, steps_per_epoch=2):
    """The parameters after each step with these gradients."""
    optimizer = make_optimizer(recipe, len(gradients), steps_per_epoch)
    state, seen = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = eqx.apply_updates(params, updates)
        seen.append(params)
    return seen


def test_factors_and_decay_are_those_of_torchs_groups():
    rng = np.random.default_rng(0)
    start = {
        "norm1": {"bias": rng.normal(size=3)},
        "conv": {"weight": rng.normal(size=(2, 2)), "bias": rng.normal(size=2)},
    }
    gradients = [jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), start) for _ in range(4)]
    recipe = Recipe(
        optimizer="sgd", schedule="constant", learning_rate=0.05, momentum=0.85, nesterov=True, weight_decay=0.3,
        decay_norms_and_biases=True, learning_rate_factors=("*bias=2", "norm*.bias=64"),
    )  # fmt: skip
    found = trajectory(recipe, *jax.tree.map(jnp.float32, (start, gradients)))
    # torch.optim.SGD in float64, with groups of `lr=0.05 * factor, weight_decay=0.3 / factor, nesterov=True`.
    factors = {"norm1": {"bias": 64}, "conv": {"weight": 1, "bias": 2}}
    params, velocity = start, jax.tree.map(np.zeros_like, start)
    for gradient, after in zip(gradients, found, strict=True):
        decayed = jax.tree.map(lambda g, p, f: g + 0.3 / f * p, gradient, params, factors)
        velocity = jax.tree.map(lambda v, d: 0.85 * v + d, velocity, decayed)
        params = jax.tree.map(lambda p, d, v, f: p - 0.05 * f * (d + 0.85 * v), params, decayed, velocity, factors)
        for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_frozen_parameters_stay_as_they_are_to_the_bit(optimizer):
    recipe = Recipe(
        optimizer=optimizer, schedule="constant", weight_decay=0.1, decay_norms_and_biases=True,
        learning_rate_factors=("whiten.weight=0", "whiten.bias=1 for 1.5 epochs"),
    )  # fmt: skip
    start = {"whiten": {"weight": jnp.full((2, 2), 0.3), "bias": jnp.full(2, 0.3)}, "head": jnp.full((2, 2), 0.3)}
    gradients = [jax.tree.map(jnp.ones_like, start)] * 5
    seen = trajectory(recipe, start, gradients)
    for after in seen:
        np.testing.assert_array_equal(after["whiten"]["weight"], start["whiten"]["weight"])
    biases = [float(after["whiten"]["bias"][0]) for after in seen]
    assert biases[0] > biases[1] > biases[2] == biases[3] == biases[4]  # an epoch has two steps
    heads = [float(after["head"][0, 0]) for after in seen]
    assert heads == sorted(set(heads), reverse=True)


def test_a_factor_does_not_multiply_decoupled_decay():
    recipe = Recipe(
        optimizer="adamw", schedule="constant", learning_rate=0.1, weight_decay=0.5, learning_rate_factors=("a=8",)
    )
    params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
    (after,) = trajectory(recipe, params, [jax.tree.map(jnp.zeros_like, params)])
    np.testing.assert_allclose([after["a"], after["b"]], 0.95, rtol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [("bias", "cannot be read: write"), ("bias=x", "cannot be read"), ("a = 1 for ever", "cannot be read")],
)
def test_a_factor_that_cannot_be_read_is_refused(entry, message):
    with pytest.raises(InputError, match=message) as caught:
        Recipe(learning_rate_factors=(entry,))
    assert "\n" not in str(caught.value)


def test_a_pattern_that_fits_no_parameter_is_refused_with_the_nearest_name():
    optimizer = make_optimizer(Recipe(learning_rate_factors=("*=2", "conv1.wieght=0")), 10, 5)
    with pytest.raises(
        InputError, match=r"`conv1.wieght`|'conv1.wieght'.* fits no parameter; did you mean `conv1.weight`"
    ):
        optimizer.init({"conv1": {"weight": jnp.ones(2)}, "head": {"bias": jnp.ones(2)}})
