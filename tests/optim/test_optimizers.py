import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.optim.optimizers import is_decayed
from eqxcnn.optim.schedules import ScheduleShape
from eqxcnn.training import Recipe
from eqxcnn.training.builders import build_optimizer, build_schedule, resolve_schedule_shape


def test_schedules_at_hand_worked_steps():
    constant = build_schedule(Recipe(schedule="constant", learning_rate=0.1), 100, 10.0)
    assert (constant(0), constant(99)) == (0.1, 0.1)
    cosine = build_schedule(Recipe(schedule="cosine", learning_rate=0.1), 100, 10.0)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [0.1, 0.05, 0.0], atol=1e-8)
    one_cycle = build_schedule(Recipe(schedule="one_cycle", learning_rate=0.1), 100, 10.0)
    np.testing.assert_allclose([one_cycle(0), one_cycle(25)], [0.1 / 25, 0.1], rtol=1e-6)
    np.testing.assert_allclose(one_cycle(100), 0.1 / 25 / 300, rtol=1e-3)  # Smith and Topin 2017


def test_warmup_and_decay_at_hand_worked_steps():
    shape = {"learning_rate": 2.0, "warmup_fraction": 0.23, "initial_lr_factor": 0.2, "final_lr_factor": 0.07}
    linear = build_schedule(Recipe(schedule="linear", **shape), 100, 10.0)
    actual = [linear(step) for step in (0, 10, 23, 50, 100)]
    expected = [0.4, 0.4 + 1.6 * 10 / 23, 2.0, 2.0 - 1.86 * 27 / 77, 0.14]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    cosine = build_schedule(Recipe(schedule="cosine", **shape), 100, 10.0)
    actual = [cosine(step) for step in (10, 23, 23 + 77 / 2, 100)]
    np.testing.assert_allclose(actual, [expected[1], 2.0, (2.0 + 0.14) / 2, 0.14], rtol=1e-6)
    rising = build_schedule(Recipe(schedule="constant", learning_rate=2.0, warmup_fraction=0.5), 10, 10.0)
    np.testing.assert_allclose([rising(step) for step in (0, 1, 5, 9)], [0, 0.4, 2, 2], rtol=1e-6)


def test_unset_shape_settings_take_the_defaults_of_the_schedule():
    assert resolve_schedule_shape(Recipe(schedule="linear", final_lr_factor=0.1)) == ScheduleShape(0.0, 0.0, 0.1)
    assert resolve_schedule_shape(Recipe(schedule="one_cycle")).warmup_fraction == 0.25


def test_biases_and_scales_are_not_decayed():
    assert is_decayed(jnp.ones((3, 3, 1, 2)))
    assert not is_decayed(jnp.ones(2))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_shrinks_only_kernels(optimizer):
    recipe = Recipe(optimizer=optimizer, learning_rate=0.1, schedule="constant", weight_decay=0.5, momentum=0.0)
    update = build_optimizer(recipe, 10, 5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update.update(zero, update.init(params), params)
    after = eqx.apply_updates(params, updates)
    np.testing.assert_allclose(after["kernel"], 0.95)  # 1 - 0.1 x 0.5
    np.testing.assert_array_equal(after["bias"], 1.0)


def test_sgd_with_momentum_is_the_textbook_update():
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, schedule="constant", momentum=0.9)
    update = build_optimizer(recipe, 10, 5)
    params = jnp.array([1.0])
    state = update.init(params)
    for expected in (1 - 0.1, 1 - 0.1 - 0.19):  # velocities 1 and 1.9
        step, state = update.update(jnp.array([1.0]), state, params)
        params = params + step
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def run_optimizer(recipe, params, gradients, steps_per_epoch=2):
    """Returns the parameters after each step with these gradients."""
    optimizer = build_optimizer(recipe, len(gradients), steps_per_epoch)
    state, history = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = eqx.apply_updates(params, updates)
        history.append(params)
    return history


def test_factors_and_decay_agree_with_torch_parameter_groups():
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
    actual = run_optimizer(recipe, *jax.tree.map(jnp.float32, (start, gradients)))
    # torch.optim.SGD in float64, with groups of `lr=0.05 * factor, weight_decay=0.3 / factor, nesterov=True`.
    factors = {"norm1": {"bias": 64}, "conv": {"weight": 1, "bias": 2}}
    params, velocity = start, jax.tree.map(np.zeros_like, start)
    for gradient, after in zip(gradients, actual, strict=True):
        decayed = jax.tree.map(lambda g, p, f: g + 0.3 / f * p, gradient, params, factors)
        velocity = jax.tree.map(lambda v, d: 0.85 * v + d, velocity, decayed)
        params = jax.tree.map(lambda p, d, v, f: p - 0.05 * f * (d + 0.85 * v), params, decayed, velocity, factors)
        for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_frozen_parameters_stay_bitwise_unchanged(optimizer):
    recipe = Recipe(
        optimizer=optimizer, schedule="constant", weight_decay=0.1, decay_norms_and_biases=True,
        learning_rate_factors=("whiten.weight=0", "whiten.bias=1 for 1.5 epochs"),
    )  # fmt: skip
    start = {"whiten": {"weight": jnp.full((2, 2), 0.3), "bias": jnp.full(2, 0.3)}, "head": jnp.full((2, 2), 0.3)}
    gradients = [jax.tree.map(jnp.ones_like, start)] * 5
    history = run_optimizer(recipe, start, gradients)
    for after in history:
        np.testing.assert_array_equal(after["whiten"]["weight"], start["whiten"]["weight"])
    biases = [float(after["whiten"]["bias"][0]) for after in history]
    assert biases[0] > biases[1] > biases[2] == biases[3] == biases[4]  # an epoch has two steps
    heads = [float(after["head"][0, 0]) for after in history]
    assert heads == sorted(set(heads), reverse=True)


def test_factors_do_not_multiply_decoupled_decay():
    recipe = Recipe(
        optimizer="adamw", schedule="constant", learning_rate=0.1, weight_decay=0.5, learning_rate_factors=("a=8",)
    )
    params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
    (after,) = run_optimizer(recipe, params, [jax.tree.map(jnp.zeros_like, params)])
    np.testing.assert_allclose([after["a"], after["b"]], 0.95, rtol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [("bias", "cannot be read: write"), ("bias=x", "cannot be read"), ("a = 1 for ever", "cannot be read")],
)
def test_malformed_factors_are_refused(entry, message):
    with pytest.raises(InputError, match=message) as error:
        Recipe(learning_rate_factors=(entry,))
    assert "\n" not in str(error.value)


def test_pattern_without_a_match_is_refused_with_the_nearest_name():
    optimizer = build_optimizer(Recipe(learning_rate_factors=("*=2", "conv1.wieght=0")), 10, 5)
    with pytest.raises(
        InputError, match=r"`conv1.wieght`|'conv1.wieght'.* matches no parameter; did you mean `conv1.weight`"
    ):
        optimizer.init({"conv1": {"weight": jnp.ones(2)}, "head": {"bias": jnp.ones(2)}})


def test_polynomial_step_and_multistep_schedules_at_hand_worked_steps():
    power = build_schedule(Recipe(schedule="polynomial", learning_rate=2.0, power=3.0), 100, 10.0)
    np.testing.assert_allclose([power(0), power(50), power(100)], [2.0, 2.0 / 8, 0.0], atol=1e-7)
    steps = build_schedule(Recipe(schedule="step", learning_rate=2.0, decay_epochs=3.0, decay_rate=0.5), 100, 10.0)
    np.testing.assert_allclose([steps(step) for step in (0, 29, 30, 59, 60, 99)], [2, 2, 1, 1, 0.5, 0.25])
    drops = {"decay_milestones": (8.0, 4.5), "decay_rate": 0.1, "warmup_fraction": 0.1, "initial_lr_factor": 0.5}
    several = build_schedule(Recipe(schedule="multistep", learning_rate=2.0, **drops), 100, 10.0)
    # Milestones count from the start of training, including the warmup.
    actual = [several(step) for step in (0, 5, 10, 44, 45, 79, 80)]
    np.testing.assert_allclose(actual, [1, 1.5, 2, 2, 0.2, 0.2, 0.02], rtol=1e-6)


def test_plateau_lowers_the_rate_when_the_epoch_loss_stops_improving():
    recipe = Recipe(
        optimizer="sgd", momentum=0.0, schedule="plateau", learning_rate=0.1, patience_epochs=2, decay_rate=0.5
    )
    optimizer = build_optimizer(recipe, 20, 2)
    params = jnp.zeros(1)
    state, deltas = optimizer.init(params), []
    for loss in (5.0, 3.0, 4.0, 2.0, 3.0, 3.5, 3.0, 3.6, 1.0, 1.0):  # epochs: 4, 3, 3.25, 3.3, 1
        update, state = optimizer.update(jnp.ones(1), state, params, value=jnp.float32(loss))
        deltas.append(float(update[0]))
    np.testing.assert_allclose(deltas, [-0.1] * 7 + [-0.05] * 3, rtol=1e-6)


def adam(gradient, param, memory, eps=1e-8):
    """Kingma and Ba 2015, algorithm 1; updates `memory` in place."""
    memory["t"] = memory.get("t", 0) + 1
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
    return memory["m"] / (1 - 0.9 ** memory["t"]) / (np.sqrt(memory["v"] / (1 - 0.999 ** memory["t"])) + eps)


def adam_with_decay(gradient, param, memory):
    return adam(gradient + 0.3 * param, param, memory)


def adamw(gradient, param, memory):
    return adam(gradient, param, memory) + 0.3 * param


def lamb(gradient, param, memory):
    """You et al. 2020, algorithm 2."""
    update = adam(gradient, param, memory, 1e-6) + 0.3 * param
    return update * np.linalg.norm(param) / np.linalg.norm(update)


def lion(gradient, param, memory):
    """Chen et al. 2023, algorithm 2."""
    moment = memory.get("m", 0)
    memory["m"] = 0.99 * moment + 0.01 * gradient
    return np.sign(0.9 * moment + 0.1 * gradient) + 0.3 * param


def rmsprop(gradient, param, memory):
    """Tieleman and Hinton 2012, with momentum."""
    decayed = gradient + 0.3 * param
    memory["v"] = 0.9 * memory.get("v", 0) + 0.1 * decayed**2
    memory["m"] = 0.8 * memory.get("m", 0) + decayed / np.sqrt(memory["v"] + 1e-8)
    return memory["m"]


def nesterov(gradient, param, memory):
    """Sutskever et al. 2013, as torch writes it."""
    decayed = gradient + 0.3 * param
    memory["m"] = 0.8 * memory.get("m", 0) + decayed
    return decayed + 0.8 * memory["m"]


RULES = {
    "adam": adam_with_decay, "adamw": adamw, "lamb": lamb, "lion": lion, "nesterov": nesterov, "rmsprop": rmsprop,
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_update_rules_follow_their_papers(name):
    rng = np.random.default_rng(1)
    param, gradients = rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2))
    recipe = Recipe(optimizer=name, schedule="constant", learning_rate=0.05, momentum=0.8, weight_decay=0.3)
    actual = run_optimizer(recipe, jnp.float32(param), [jnp.float32(gradient) for gradient in gradients])
    memory = {}
    for gradient, after in zip(gradients, actual, strict=True):
        param = param - 0.05 * RULES[name](gradient, param, memory)
        np.testing.assert_allclose(after, param, rtol=1e-4, atol=1e-5)


def test_muon_orthogonalizes_the_momentum_of_matrices():
    rng = np.random.default_rng(2)
    shapes = {"kernel": (3, 3, 4, 8), "matrix": (5, 7), "bias": (6,)}
    gradient = {name: jnp.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    recipe = Recipe(optimizer="muon", schedule="constant", learning_rate=0.1)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    (after,) = run_optimizer(recipe, zeros, [gradient])
    for name, matrix in (("kernel", after["kernel"].reshape(36, 8)), ("matrix", after["matrix"].T)):
        first = np.asarray(gradient[name]).reshape(36, 8) if name == "kernel" else np.asarray(gradient[name]).T
        values = np.linalg.svd(matrix, compute_uv=False)
        # Five Newton-Schulz steps bring singular values to between 0.7 and 1.2 (Jordan et al. 2024).
        scale = 0.1 * np.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
        assert values.min() > 0.6 * scale
        assert values.max() < 1.3 * scale
        u, _, v = np.linalg.svd(first, full_matrices=False)
        assert np.vdot(u @ v, -np.asarray(matrix)) > 0.95 * np.linalg.norm(u @ v) * np.linalg.norm(matrix)
    # Other parameters use Adam with Nesterov momentum (Dozat 2016), whose first step has this size.
    size = 0.1 * (0.9 * 0.1 / (1 - 0.9**2) + 1)
    np.testing.assert_allclose(after["bias"], -size * np.sign(gradient["bias"]), rtol=1e-4)


def plain_sgd(**settings):
    return Recipe(optimizer="sgd", momentum=0.0, schedule="constant", learning_rate=1.0, **settings)


def test_gradients_are_clipped_by_value_by_filter_and_by_norm():
    params = {"conv": jnp.full((1, 1, 2, 2), 2.0), "dense": jnp.full((3, 4), 0.5), "bias": jnp.zeros(2)}
    gradient = {
        "conv": jnp.array([[[[3.0, 0.1], [4.0, 0.1]]]]), "dense": jnp.zeros((3, 4)).at[1].set(2.0),
        "bias": jnp.array([0.5, -2.0]),
    }  # fmt: skip
    (value,) = run_optimizer(plain_sgd(clip_value=1.0), params, [gradient])
    np.testing.assert_allclose(value["bias"], [-0.5, 1.0])
    np.testing.assert_allclose(value["conv"][0, 0], [[1.0, 1.9], [1.0, 1.9]], rtol=1e-6)
    (norm,) = run_optimizer(plain_sgd(clip_norm=1.0), params, [gradient])
    whole = np.sqrt(9 + 16 + 0.02 + 4 * 4 + 0.25 + 4)
    np.testing.assert_allclose(norm["conv"][0, 0, :, 0], 2 - np.array([3, 4]) / whole, rtol=1e-6)
    (agc,) = run_optimizer(plain_sgd(clip_agc=0.1), params, [gradient])
    # The first filter has weight norm sqrt(8) and gradient norm 5; the second filter's gradient is below the limit.
    np.testing.assert_allclose(agc["conv"][0, 0, :, 0], 2 - np.array([3, 4]) * 0.1 * np.sqrt(8) / 5, rtol=1e-5)
    np.testing.assert_allclose(agc["conv"][0, 0, :, 1], 1.9, rtol=1e-6)
    # Each row of the matrix belongs to one output: weight norm 1, gradient norm 4.
    np.testing.assert_allclose(agc["dense"][1], 0.5 - 2 * 0.1 / 4, rtol=1e-5)


def test_accumulated_gradients_equal_one_large_batch():
    rng = np.random.default_rng(3)
    gradients = [jnp.float32(gradient) for gradient in rng.normal(size=(6, 2, 2))]
    settings = {"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.2, "learning_rate_factors": ("*=2",)}
    start = {"a": jnp.ones((2, 2))}
    small = run_optimizer(Recipe(accumulate_steps=2, **settings), start, [{"a": gradient} for gradient in gradients])
    means = [{"a": (first + second) / 2} for first, second in zip(gradients[::2], gradients[1::2], strict=True)]
    large = run_optimizer(Recipe(**settings), start, means, steps_per_epoch=1)
    np.testing.assert_array_equal(small[0]["a"], start["a"])
    for one, other in zip(small[1::2], large, strict=True):
        np.testing.assert_allclose(one["a"], other["a"], rtol=1e-6)


def test_layer_decay_slows_layers_far_from_the_head():
    params = {"stem": {"weight": jnp.zeros((1, 1))}, "blocks": [{"a": jnp.zeros((1, 1)), "b": jnp.zeros(1)}] * 2}
    params |= {"z_head": jnp.zeros((2, 1))}
    ones = jax.tree.map(jnp.ones_like, params)
    (after,) = run_optimizer(plain_sgd(layer_decay=0.5, learning_rate_factors=("blocks.1.b=3",)), params, [ones])
    # In tree order: blocks.0, blocks.1, stem, z_head.
    assert [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(after)] == [-0.125, -0.125, -0.25, -0.75, -0.5, -1]
