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
from eqxcnn.training.setup import Setup
from eqxcnn.training.state import TrainState
from eqxcnn.training.step import autodiff, train_step, train_steps
from eqxcnn.types import Classifier

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (12, 12, 12, 1), np.uint8))
LABELS = jnp.asarray(RNG.integers(0, 10, 12).astype(np.int32))


class Tiny(Classifier):
    """A convolution, a BatchNorm and a dropout: state and randomness in as little as there can be."""

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


def setup(optimizer, augment=None, data=(IMAGES, LABELS), value_and_grad=None, lookahead=None, **more):
    mean, std = jnp.array([0.5]), jnp.array([0.25])
    functions = (value_and_grad or autodiff(), optimizer, augment, lookahead)
    return Setup(*functions, steps_per_epoch=2, key=jax.random.key(7), mean=mean, std=std, data=data, **more)


def start(optimizer, make=lambda key: Tiny(key=key)):
    model, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    return TrainState.start(model, state, optimizer)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def assert_equal(first, second):
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_is_gradient_descent_on_the_mean_loss():
    model, state = zoo.create_model("mlp", image_size=12, key=jax.random.key(0))
    optimizer = optax.sgd(0.1)
    after = train_step(setup(optimizer), TrainState.start(model, state, optimizer), jnp.arange(4))

    def loss(model):
        images = (IMAGES[:4] / 255 - 0.5) / 0.25
        logits = jax.vmap(lambda image: model(image, state, key=None)[0])(images)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:4, None], 1).mean()

    value, gradients = eqx.filter_value_and_grad(loss)(model)
    expected = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradients))
    for one, other in zip(leaves(after.model), leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after.sums.loss, 4 * value, rtol=1e-5)
    assert (int(after.sums.count), int(after.step)) == (4, 1)


def test_rows_of_resident_images_and_a_streamed_batch_are_the_same_step():
    optimizer, rows = optax.adam(1e-2), jnp.array([3, 1, 8])
    flip = build(["alternating_flip"])
    resident = train_step(setup(optimizer, flip), start(optimizer), rows)
    streamed = train_step(setup(optimizer, flip, data=None), start(optimizer), (IMAGES[rows], LABELS[rows], rows))
    assert_equal(resident, streamed)


def test_scanned_steps_are_single_steps_one_after_the_other():
    # Not Adam: the gradient of a bias before BatchNorm is nothing but rounding, and Adam would make it full size.
    optimizer, rows = optax.sgd(1e-2), jnp.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    fixed = setup(optimizer)
    one_by_one = start(optimizer)
    for each in rows:
        one_by_one = async_jit(train_steps)(fixed, one_by_one, each[None])
    scanned = async_jit(train_steps)(fixed, start(optimizer), rows)
    for one, other in zip(leaves(one_by_one), leaves(scanned), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert int(scanned.step) == 3


def test_all_randomness_is_a_function_of_seed_and_step():
    optimizer, rows = optax.sgd(0.1), jnp.arange(6)
    first = train_step(setup(optimizer), start(optimizer), rows)
    assert_equal(first, train_step(setup(optimizer), start(optimizer), rows))
    later = eqx.tree_at(lambda train: train.step, start(optimizer), jnp.array(5, jnp.int32))
    assert float(train_step(setup(optimizer), later, rows).sums.loss) != float(first.sums.loss)


def test_every_image_of_a_batch_is_augmented_with_a_key_of_its_own():
    def noise(image, key):
        return jnp.full_like(image, jax.random.uniform(key))

    assert len(np.unique(seen_by_the_model(compose([noise]), jnp.zeros(5, jnp.int32)))) == 5


def seen_by_the_model(augment, rows, step=0):
    """The images that a step's gradients are taken at."""
    seen = []

    def value_and_grad(model, state, images, labels, key):
        seen.append(images)
        return autodiff()(model, state, images, labels, key)

    optimizer = optax.sgd(0.1)
    train = eqx.tree_at(lambda train: train.step, start(optimizer), jnp.array(step, jnp.int32))
    train_step(setup(optimizer, augment, value_and_grad=value_and_grad), train, rows)
    return np.asarray(seen[0])


def test_alternating_flips_toss_a_coin_an_image_and_then_take_turns():
    rows = np.arange(12)
    plain = (np.asarray(IMAGES, np.float32) / 255 - 0.5) / 0.25
    flip = build(["alternating_flip"])

    def mirrored(rows, step):
        images = seen_by_the_model(flip, jnp.asarray(rows), step)
        both = plain[rows], plain[rows][:, :, ::-1]
        is_first, is_second = (np.isclose(images, each, atol=1e-5).all((1, 2, 3)) for each in both)
        assert (is_first ^ is_second).all()
        return is_second

    # An epoch has two steps; rows may come in any order and number.
    first = mirrored(rows, 0)
    assert 0 < first.sum() < 12
    np.testing.assert_array_equal(mirrored(rows, 1), first)
    np.testing.assert_array_equal(mirrored(rows[::-1], 2), ~first[::-1])
    np.testing.assert_array_equal(mirrored(rows[3:8], 3), ~first[3:8])
    np.testing.assert_array_equal(mirrored(rows, 4), first)


def test_lookahead_calls_model_and_state_back_and_the_optimizer_goes_on():
    optimizer, rows = optax.sgd(0.1, 0.9), jnp.arange(6)
    fixed = setup(optimizer, lookahead=Lookahead(every=2, decay=0.5, steps=3))
    plain = start(optimizer)
    train = TrainState.start(plain.model, plain.state, optimizer, use_lookahead=True)
    first, last = train_step(fixed, train, rows), train_step(setup(optimizer), plain, rows)
    assert_equal((first.model, first.state, first.opt_state), (last.model, last.state, last.opt_state))
    second = train_step(fixed, first, rows)
    slow, fast = (
        jax.tree.leaves(eqx.filter(each, eqx.is_inexact_array)) for each in (second.slow, (second.model, second.state))
    )
    assert_equal(slow, fast)
    third = train_step(fixed, second, rows)
    assert_equal((third.model, third.state), (second.model, second.state))
    assert not np.array_equal(leaves(third.opt_state)[0], leaves(second.opt_state)[0])


def test_mixed_images_and_their_labels_reach_the_loss():
    seen = []

    def value_and_grad(model, state, images, targets, key):
        seen.append((images, targets))
        return autodiff()(model, state, images, targets, key)

    rows = jnp.array([3, 4, 5, 6])
    after = train_step(
        setup(optax.sgd(0.1), value_and_grad=value_and_grad, mix=Mix(mixup=1.0)), start(optax.sgd(0.1)), rows
    )
    ((images, targets),) = seen
    share = targets.share[:, None, None, None]
    plain = IMAGES[rows].astype(jnp.float32) / 255
    expected = (share * plain + (1 - share) * jnp.roll(plain, 1, 0) - 0.5) / 0.25
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_array_equal(targets.own, LABELS[rows])
    np.testing.assert_array_equal(targets.other, LABELS[jnp.array([6, 3, 4, 5])])
    assert int(after.sums.count) == 4


def averaged(average, steps):
    """The weights after each step, and the average after the last."""
    optimizer = optax.sgd(0.1, 0.9)
    plain = start(optimizer)
    train = TrainState.start(plain.model, plain.state, optimizer, use_average=True)
    seen, fixed = [], setup(optimizer, average=average)
    for step in range(steps):
        train = train_step(fixed, train, jnp.arange(6) + 6 * (step % 2))
        seen.append(leaves(eqx.filter((train.model, train.state), eqx.is_inexact_array)))
    return plain, seen, train


def test_a_moving_average_follows_weights_and_statistics_and_changes_nothing():
    plain, seen, train = averaged(WeightAverage("ema", decay=0.3, start=0, every=2), 4)
    expected = leaves(eqx.filter((plain.model, plain.state), eqx.is_inexact_array))
    for step, now in enumerate(seen, 1):
        kept = min(0.3, (1 + step) / (10 + step))  # 2/11, 1/4, 0.3, 0.3
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, now, strict=True)]
    for one, other in zip(leaves(eqx.filter(train.averaged, eqx.is_inexact_array)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    _, without, _ = averaged(WeightAverage("swa", decay=0.3, start=0, every=2), 4)
    for one, other in zip(seen[-1], without[-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_plain_average_is_of_the_ends_of_epochs_from_its_start_on():
    _, seen, train = averaged(WeightAverage("swa", decay=0.0, start=3, every=2), 7)
    # EpochRunner end after 2, 4 and 6 steps.
    for one, fourth, sixth in zip(leaves(train.average), seen[3], seen[5], strict=True):
        np.testing.assert_allclose(one, (fourth + sixth) / 2, rtol=1e-5, atol=1e-6)
    _, seen, train = averaged(WeightAverage("swa", decay=0.0, start=3, every=2), 3)
    assert_equal(train.average, tuple(seen[-1]))
    # From the start: the random weights before the first step are no epoch's end.
    _, seen, train = averaged(WeightAverage("swa", decay=0.0, start=0, every=2), 4)
    for one, second, fourth in zip(leaves(train.average), seen[1], seen[3], strict=True):
        np.testing.assert_allclose(one, (second + fourth) / 2, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_float32_within_its_error_and_keeps_the_weights_in_float32():
    optimizer, rows = optax.sgd(0.05, 0.9), jnp.arange(12)
    exact, rough = start(optimizer), start(optimizer)
    for _ in range(3):
        exact = train_step(setup(optimizer), exact, rows)
        rough = train_step(setup(optimizer, value_and_grad=autodiff(dtype=jnp.bfloat16)), rough, rows)
    assert {leaf.dtype for leaf in leaves((rough.model, rough.state, rough.opt_state))} == {np.dtype(np.float32)}
    assert rough.sums.loss.dtype == jnp.float32
    np.testing.assert_allclose(rough.sums.loss, exact.sums.loss, rtol=0.02)
    assert float(rough.sums.loss) != float(exact.sums.loss)
    for one, other in zip(leaves((rough.model, rough.state)), leaves((exact.model, exact.state)), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


def test_batchnorm_statistics_move_in_training():
    optimizer = optax.sgd(0.1)
    before = start(optimizer)
    after = train_step(setup(optimizer), before, jnp.arange(6))
    mean = before.model.norm.running_mean
    assert not np.array_equal(after.state.get(mean), np.zeros(4))


def test_donated_memory_gives_the_same_numbers():
    optimizer = optax.adam(1e-2)
    rows = jnp.arange(6)[None]
    kept = async_jit(train_steps)(setup(optimizer), start(optimizer), rows)
    donated = async_jit(train_steps, donate=True)(setup(optimizer), start(optimizer), rows)
    assert_equal(kept, donated)


def test_rows_without_resident_images_is_a_plain_error():
    optimizer = optax.sgd(0.1)
    with pytest.raises(AssertionError, match=r"needs a setup that holds the data"):
        train_step(setup(optimizer, data=None), start(optimizer), jnp.arange(4))
