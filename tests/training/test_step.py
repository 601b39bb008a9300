from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqxcnn import zoo
from eqxcnn.augment import Mix, build, compose
from eqxcnn.layers import BatchNorm, Conv, global_avg_pool
from eqxcnn.optim.averages import Lookahead, WeightAverage
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import step as step_module
from eqxcnn.training.inputs import make_input, step_keys
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import autodiff, train_steps

#: Compiled, because each operation would be compiled for itself otherwise.
train_step = eqx.filter_jit(step_module.train_step)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (12, 12, 12, 1), np.uint8))
LABELS = jnp.asarray(RNG.integers(0, 10, 12).astype(np.int32))


class Tiny(eqx.Module):
    """Convolution, BatchNorm and dropout: a minimal model with state and randomness."""

    conv: Conv
    norm: BatchNorm
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, *, key):
        first, second = jax.random.split(key)
        self.conv, self.norm = Conv(1, 4, 3, key=first), BatchNorm(4)
        self.drop, self.head = eqx.nn.Dropout(0.5), eqx.nn.Linear(4, 10, key=second)

    def features(self, image, state, *, key):
        x, state = self.norm(self.conv(image), state)
        return (x,), state

    def __call__(self, image, state, *, key):
        (x,), state = self.features(image, state, key=key)
        return self.head(self.drop(global_avg_pool(x), key=key)), state


def make_setup(optimizer, augment=None, data=(IMAGES, LABELS), value_and_grad=None, lookahead=None, **more):
    mean, std = jnp.array([0.5]), jnp.array([0.25])
    functions = (value_and_grad or autodiff(), optimizer, augment, lookahead)
    return Setup(*functions, steps_per_epoch=2, key=jax.random.key(7), mean=mean, std=std, data=data, **more)


def make_train_state(optimizer, make=lambda key: Tiny(key=key)):
    model, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    return TrainState.start(model, state, optimizer)


def array_leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def assert_equal(first, second):
    for one, other in zip(array_leaves(first), array_leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_step_is_gradient_descent_on_the_mean_loss():
    model, state = zoo.create_model("mlp", image_size=12, key=jax.random.key(0))
    optimizer = optax.sgd(0.1)
    after = train_step(make_setup(optimizer), TrainState.start(model, state, optimizer), jnp.arange(4))

    def loss(model):
        images = (IMAGES[:4] / 255 - 0.5) / 0.25
        logits = jax.vmap(lambda image: model(image, state, key=None)[0])(images)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:4, None], 1).mean()

    value, gradients = eqx.filter_value_and_grad(loss)(model)
    expected = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradients))
    for one, other in zip(array_leaves(after.model), array_leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after.sums.loss, 4 * value, rtol=1e-5)
    assert (int(after.sums.count), int(after.step)) == (4, 1)


@pytest.mark.slow
def test_resident_rows_and_a_streamed_batch_give_the_same_step():
    optimizer, rows = optax.adam(1e-2), jnp.array([3, 1, 8])
    flip = build(["alternating_flip"])
    resident = train_step(make_setup(optimizer, flip), make_train_state(optimizer), rows)
    streamed = train_step(
        make_setup(optimizer, flip, data=None), make_train_state(optimizer), (IMAGES[rows], LABELS[rows], rows)
    )
    assert_equal(resident, streamed)


@pytest.mark.slow
def test_scanned_steps_agree_with_single_steps():
    # Not Adam: the gradient of a bias before BatchNorm is only rounding error, which Adam would scale up.
    optimizer, rows = optax.sgd(1e-2), jnp.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    job_setup = make_setup(optimizer)
    single, steps = make_train_state(optimizer), async_jit(train_steps)
    for batch in rows:
        single = steps(job_setup, single, batch[None])
    scanned = steps(job_setup, make_train_state(optimizer), rows)
    for one, other in zip(array_leaves(single), array_leaves(scanned), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert int(scanned.step) == 3


@pytest.mark.slow
def test_randomness_depends_only_on_seed_and_step():
    optimizer, rows = optax.sgd(0.1), jnp.arange(6)
    job_setup = make_setup(optimizer)
    first = train_step(job_setup, make_train_state(optimizer), rows)
    assert_equal(first, train_step(job_setup, make_train_state(optimizer), rows))
    later = eqx.tree_at(lambda train: train.step, make_train_state(optimizer), jnp.array(5, jnp.int32))
    assert float(train_step(job_setup, later, rows).sums.loss) != float(first.sums.loss)
    other_seed = replace(job_setup, key=jax.random.key(8))
    assert float(train_step(other_seed, make_train_state(optimizer), rows).sums.loss) != float(first.sums.loss)


@pytest.mark.slow
def test_each_image_is_augmented_with_its_own_key():
    def noise(image, key):
        return jnp.full_like(image, jax.random.uniform(key))

    assert len(np.unique(augmented_images(compose([noise]), jnp.zeros(5, jnp.int32)))) == 5


@eqx.filter_jit
def augmented_images(augment, rows, step=0):
    """Returns the images that the model receives in a step."""
    job_setup, step = make_setup(optax.sgd(0.1), augment), jnp.asarray(step, jnp.int32)
    return make_input(job_setup, rows, step, step_keys(job_setup.key, step))[0]


@pytest.mark.slow
def test_alternating_flips_are_random_per_image_and_then_alternate():
    rows = np.arange(12)
    plain = (np.asarray(IMAGES, np.float32) / 255 - 0.5) / 0.25
    flip = build(["alternating_flip"])

    def is_mirrored(rows, step):
        images = np.asarray(augmented_images(flip, jnp.asarray(rows), jnp.asarray(step)))
        both = plain[rows], plain[rows][:, :, ::-1]
        is_plain, is_flipped = (np.isclose(images, candidate, atol=1e-5).all((1, 2, 3)) for candidate in both)
        assert (is_plain ^ is_flipped).all()
        return is_flipped

    # An epoch has two steps; a batch may hold any rows in any order.
    first = is_mirrored(rows, 0)
    assert 0 < first.sum() < 12
    np.testing.assert_array_equal(is_mirrored(rows, 1), first)
    np.testing.assert_array_equal(is_mirrored(rows[::-1], 2), ~first[::-1])
    np.testing.assert_array_equal(is_mirrored(rows[3:8], 3), ~first[3:8])
    np.testing.assert_array_equal(is_mirrored(rows, 4), first)


@pytest.mark.slow
def test_lookahead_resets_model_and_state_but_not_the_optimizer():
    optimizer, rows = optax.sgd(0.1, 0.9), jnp.arange(6)
    job_setup = make_setup(optimizer, lookahead=Lookahead(every=2, decay=0.5, steps=3))
    plain = make_train_state(optimizer)
    train = TrainState.start(plain.model, plain.state, optimizer, use_lookahead=True)
    first, last = train_step(job_setup, train, rows), train_step(make_setup(optimizer), plain, rows)
    assert_equal((first.model, first.state, first.opt_state), (last.model, last.state, last.opt_state))
    second = train_step(job_setup, first, rows)
    slow, fast = (
        jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (second.slow, (second.model, second.state))
    )
    assert_equal(slow, fast)
    third = train_step(job_setup, second, rows)
    assert_equal((third.model, third.state), (second.model, second.state))
    assert not np.array_equal(array_leaves(third.opt_state)[0], array_leaves(second.opt_state)[0])


@pytest.mark.slow
def test_mixed_images_and_labels_reach_the_loss():
    seen = []

    def value_and_grad(model, state, images, targets, key):
        (loss, (state, _)), gradients = autodiff()(model, state, images, targets, key)
        # Predicts the own label of the first image, and the partner's label of the others.
        logits = jax.nn.one_hot(jnp.where(jnp.arange(4) < 1, targets.own, targets.other), 10)
        seen.append((images, targets))
        return (loss, (state, logits)), gradients

    @eqx.filter_jit
    def step(train, rows):
        setup = make_setup(optax.sgd(0.1), value_and_grad=value_and_grad, mix=Mix(mixup=1.0))
        return step_module.train_step(setup, train, rows), *seen.pop()

    rows = jnp.array([3, 4, 5, 6])
    after, images, targets = step(make_train_state(optax.sgd(0.1)), rows)
    share = targets.share[:, None, None, None]
    plain = IMAGES[rows].astype(jnp.float32) / 255
    expected = (share * plain + (1 - share) * jnp.roll(plain, 1, 0) - 0.5) / 0.25
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_array_equal(targets.own, LABELS[rows])
    np.testing.assert_array_equal(targets.other, LABELS[jnp.array([6, 3, 4, 5])])
    # An image counts as correct if its own label is predicted, or a partner with the same label.
    correct = 1 + int((targets.own == targets.other)[1:].sum())
    assert (int(after.sums.correct), int(after.sums.count)) == (correct, 4)


def train_with_average(average, steps):
    """Returns the initial state, the weights after each step and the final state."""
    optimizer = optax.sgd(0.1, 0.9)
    plain = make_train_state(optimizer)
    train = TrainState.start(plain.model, plain.state, optimizer, use_average=True)
    history, job_setup = [], make_setup(optimizer, average=average)
    for step in range(steps):
        train = train_step(job_setup, train, jnp.arange(6) + 6 * (step % 2))
        history.append(array_leaves(eqx.filter((train.model, train.state), eqx.is_inexact_array)))
    return plain, history, train


def test_ema_follows_weights_and_statistics_without_changing_training():
    plain, history, train = train_with_average(WeightAverage("ema", decay=0.3, start=0, every=2), 4)
    expected = array_leaves(eqx.filter((plain.model, plain.state), eqx.is_inexact_array))
    for step, weights in enumerate(history, 1):
        decay = min(0.3, (1 + step) / (10 + step))  # 2/11, 1/4, 0.3, 0.3
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    for one, other in zip(array_leaves(eqx.filter(train.averaged, eqx.is_inexact_array)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    _, other_history, _ = train_with_average(WeightAverage("swa", decay=0.3, start=0, every=2), 4)
    for one, other in zip(history[-1], other_history[-1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_swa_averages_epoch_ends_from_its_start():
    _, history, train = train_with_average(WeightAverage("swa", decay=0.0, start=3, every=2), 7)
    # Epochs end after 2, 4 and 6 steps.
    for one, fourth, sixth in zip(array_leaves(train.average), history[3], history[5], strict=True):
        np.testing.assert_allclose(one, (fourth + sixth) / 2, rtol=1e-5, atol=1e-6)
    _, history, train = train_with_average(WeightAverage("swa", decay=0.0, start=3, every=2), 3)
    assert_equal(train.average, tuple(history[-1]))
    # With `start=0`, the initial weights do not count as an epoch end.
    _, history, train = train_with_average(WeightAverage("swa", decay=0.0, start=0, every=2), 4)
    for one, second, fourth in zip(array_leaves(train.average), history[1], history[3], strict=True):
        np.testing.assert_allclose(one, (second + fourth) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_agrees_with_float32_and_keeps_float32_weights():
    optimizer, rows = optax.sgd(0.05, 0.9), jnp.arange(12)
    float32, bfloat16 = make_train_state(optimizer), make_train_state(optimizer)
    in_float32, in_bfloat16 = (
        make_setup(optimizer, value_and_grad=autodiff(dtype=dtype)) for dtype in (jnp.float32, jnp.bfloat16)
    )
    for _ in range(3):
        float32 = train_step(in_float32, float32, rows)
        bfloat16 = train_step(in_bfloat16, bfloat16, rows)
    assert {leaf.dtype for leaf in array_leaves((bfloat16.model, bfloat16.state, bfloat16.opt_state))} == {
        np.dtype(np.float32)
    }
    assert bfloat16.sums.loss.dtype == jnp.float32
    np.testing.assert_allclose(bfloat16.sums.loss, float32.sums.loss, rtol=0.02)
    assert float(bfloat16.sums.loss) != float(float32.sums.loss)
    for one, other in zip(
        array_leaves((bfloat16.model, bfloat16.state)), array_leaves((float32.model, float32.state)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=0.02)


def test_batchnorm_statistics_change_in_training():
    optimizer = optax.sgd(0.1)
    before = make_train_state(optimizer)
    after = train_step(make_setup(optimizer), before, jnp.arange(6))
    mean = before.model.norm.running_mean
    assert not np.array_equal(after.state.get(mean), np.zeros(4))


@pytest.mark.slow
def test_donated_buffers_give_the_same_numbers():
    optimizer = optax.adam(1e-2)
    rows = jnp.arange(6)[None]
    not_donated = async_jit(train_steps)(make_setup(optimizer), make_train_state(optimizer), rows)
    donated = async_jit(train_steps, donate=True)(make_setup(optimizer), make_train_state(optimizer), rows)
    assert_equal(not_donated, donated)


def test_rows_without_resident_images_are_refused():
    optimizer = optax.sgd(0.1)
    with pytest.raises(AssertionError, match=r"needs a setup that holds the data"):
        train_step(make_setup(optimizer, data=None), make_train_state(optimizer), jnp.arange(4))
