import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jaxtyping import TypeCheckError

from eqxcnn.errors import InputError
from eqxcnn.forward_pass import forward
from eqxcnn.layers import BatchNorm, global_avg_pool

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "batchnorm.json").read_text())


def draw(step):
    """Draws the same batch and output gradient as golden/make_batchnorm.py."""
    rng = np.random.RandomState(step)
    x, gradient = rng.normal(size=(2, 4, 3, 5, 2))
    return jnp.float32(x * (1 + 0.2 * step) + 0.3 * step), jnp.float32(gradient)


def run(norm, state, x, axis_name="batch"):
    return jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name=axis_name)(x, state)


@eqx.filter_jit
def train(norm, state, x, gradient):
    """Runs one step of the golden script; returns the values to compare, the layer after SGD, and the new state."""

    def loss(weight, bias, x):
        y, new = run(eqx.tree_at(lambda n: (n.weight, n.bias), norm, (weight, bias)), state, x)
        return jnp.sum(y * gradient), (y, new)

    (_, (y, new)), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(norm.weight, norm.bias, x)
    dweight, dbias, dx = grads
    norm = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (norm.weight - 0.1 * dweight, norm.bias - 0.1 * dbias))
    values = {"y": y, "dx": dx, "dweight": dweight, "dbias": dbias}
    values |= {"running_mean": new.get(norm.running_mean), "running_var": new.get(norm.running_var)}
    return values, norm, new


def assert_values(values, expected, tolerance):
    for name, value in values.items():
        np.testing.assert_allclose(value.ravel(), expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_twenty_training_steps_agree_with_torch():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    for step, expected in enumerate(GOLDEN["steps"]):
        values, norm, state = train(norm, state, *draw(step))
        assert_values(values, expected, 1e-5)
        if str(step) in GOLDEN["eval"]:  # after the first step, and after the last
            y, _ = run(eqx.nn.inference_mode(norm), state, draw(100)[0])
            np.testing.assert_allclose(y.ravel(), GOLDEN["eval"][str(step)], rtol=1e-5, atol=1e-5)
    assert step == 19


def test_a_mean_much_larger_than_the_deviation_loses_no_precision():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    x, gradient = draw(0)
    values, _, _ = train(norm, state, x + 100, gradient)
    # float32 has a resolution of 4e-6 near 100, so torch and this layer cannot agree better.
    assert_values(values, GOLDEN["mean_100"], 2e-5)
    exact = np.float64(x + 100)
    exact = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(values["y"], exact, atol=2e-5)


def test_gradients_flow_through_the_batch_statistics():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    x, gradient = (each[:, :1, :1] for each in draw(0))  # few values, so that each one changes the statistics
    loss = jax.jit(lambda x: jnp.sum(run(norm, state, x)[0] * gradient))
    check_grads(loss, (x,), order=2, modes=["rev"], atol=0.02, rtol=0.02)


def test_vmapped_networks_keep_separate_statistics():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    x, gradient = zip(*map(draw, range(3)), strict=True)
    together, _, _ = jax.vmap(train, in_axes=(None, None, 0, 0))(norm, state, jnp.stack(x), jnp.stack(gradient))
    for index, batch in enumerate(zip(x, gradient, strict=True)):
        alone, _, _ = train(norm, state, *batch)  # compiled once for this file
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][index], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_no_gradient_flows_into_the_running_statistics():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)

    def running(x):
        _, new = run(norm, state, x)
        return jnp.sum(new.get(norm.running_mean)) + jnp.sum(new.get(norm.running_var))

    assert not jax.grad(running)(draw(0)[0]).any()


def test_vectors_are_normalized_over_the_batch():
    norm, state = eqx.nn.make_with_state(BatchNorm)(1, eps=0.0, momentum=0.5)
    y, state = run(norm, state, jnp.array([[1.0], [3.0]]))
    np.testing.assert_allclose(y, [[-1.0], [1.0]])
    np.testing.assert_allclose(state.get(norm.running_mean), [1.0])  # (0 + 2) / 2
    np.testing.assert_allclose(state.get(norm.running_var), [1.5])  # (1 + 2) / 2: unbiased


def test_state_has_no_batch_axis_and_eval_mode_keeps_it():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    _, state = run(norm, state, draw(3)[0])
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(2,), (2,)]
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    _, state = eqx.nn.inference_mode(norm)(draw(4)[0][0], state)  # one image, without any vmap
    np.testing.assert_array_equal(before, jax.tree.leaves(state))


def test_bfloat16_keeps_its_dtype_and_float32_statistics():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    x = draw(0)[0].astype(jnp.bfloat16)
    exact, exact_state = run(norm, state, x.astype(jnp.float32))
    norm = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_array(leaf) else leaf, norm)
    with jax.numpy_dtype_promotion("strict"):
        y, state = run(norm, state, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    np.testing.assert_array_equal(jax.tree.leaves(state), jax.tree.leaves(exact_state))


@pytest.mark.parametrize(("use_scale", "use_bias", "arrays"), [(True, True, 2), (False, True, 1), (False, False, 0)])
def test_scale_and_bias_can_be_left_out(use_scale, use_bias, arrays):
    norm, state = eqx.nn.make_with_state(BatchNorm)(2, use_scale=use_scale, use_bias=use_bias)
    assert len(jax.tree.leaves(eqx.filter(norm, eqx.is_array))) == arrays
    x, gradient = draw(0)
    y, backward = jax.vjp(lambda x: run(norm, state, x)[0], x)
    np.testing.assert_allclose(y.ravel(), GOLDEN["steps"][0]["y"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(backward(gradient)[0].ravel(), GOLDEN["steps"][0]["dx"], rtol=1e-5, atol=1e-5)


class Tiny(eqx.Module):
    norm: BatchNorm

    def __call__(self, image, state, *, key):
        x, state = self.norm(image, state)
        return global_avg_pool(x), state

    def features(self, image, state, *, key):
        return (), state


def test_forward_binds_the_axis():
    tiny, state = eqx.nn.make_with_state(lambda: Tiny(BatchNorm(2)))()
    logits, state = forward(tiny, state, draw(0)[0], key=None)
    np.testing.assert_allclose(logits.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(state.get(tiny.norm.running_mean), GOLDEN["steps"][0]["running_mean"], rtol=1e-5)


def test_training_outside_a_batch_is_rejected():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    with pytest.raises(InputError, match=r"`axis_name` \(='batch'\).*`eqxcnn\.forward`.*`eqx\.nn\.inference_mode`"):
        norm(draw(0)[0][0], state)
    with pytest.raises(InputError, match="axis_name"):
        run(norm, state, draw(0)[0], axis_name="other")


def test_the_batch_axis_can_have_another_name():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2, axis_name="other")
    y, _ = run(norm, state, draw(0)[0], axis_name="other")
    np.testing.assert_allclose(y.ravel(), GOLDEN["steps"][0]["y"], rtol=1e-5, atol=1e-5)


def test_one_value_per_channel_is_rejected():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    with pytest.raises(InputError, match=r"more than one value per channel, got `x` of shape \(1, 1, 2\)"):
        run(norm, state, jnp.ones((1, 1, 1, 2)))
    y, _ = run(norm, state, jnp.ones((1, 1, 2, 2)))
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, r"`num_features` \(=0\) must be at least 1"),
        ({"num_features": 2, "eps": -1.0}, r"`eps` \(=-1\.0\)"),
        ({"num_features": 2, "momentum": 1.5}, r"`momentum` \(=1\.5\) is the weight of the new batch"),
    ],
)
def test_arguments_out_of_range_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        BatchNorm(**arguments)


def test_channels_first_is_rejected():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    with pytest.raises(TypeCheckError, match=r"(?s)parameter 'x'.*\*spatial \{self\.num_features\}"):
        eqx.filter_jit(run)(norm, state, jnp.ones((4, 2, 3, 5)))
