"""Tests of the learning-rate range test."""

import math

import numpy as np
import optax
import pytest

from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, find_learning_rate
from eqxcnn.training.rate_finder import _smooth, _steepest

RECIPE = Recipe(model="mlp", data="digits", train_images=320, batch_size=32)


def test_loss_falls_around_the_suggestion_and_rises_at_the_end():
    curve = find_learning_rate(RECIPE, steps=40, low=1e-5, high=100)
    assert 1e-4 < curve.suggestion < 0.1
    assert len(curve.rates) == len(curve.losses) <= 40
    np.testing.assert_allclose(np.diff(np.log(curve.rates)), math.log(1e7) / 39)
    assert min(curve.losses) < 0.9 * curve.losses[0]
    assert curve.losses[-1] > 1.2 * min(curve.losses)
    assert curve.plot().axes[0].get_xlabel() == "Learning rate"


def test_own_optimizer_follows_the_rising_rate():
    seen = []

    def make(schedule):
        seen.extend(float(schedule(step)) for step in (0, 9))
        return optax.sgd(schedule)

    find_learning_rate(RECIPE, steps=10, low=1e-4, high=1e-2, optimizer=make)
    # Preparation builds the optimizer with the recipe's schedule, before the test replaces it.
    np.testing.assert_allclose(seen[-2:], [1e-4, 1e-2], rtol=1e-4)
    with pytest.raises(InputError, match="`optimizer` has a fixed learning rate"):
        find_learning_rate(RECIPE, optimizer=optax.sgd(0.1))


def test_smoothing_has_no_bias_and_ends_with_divergence():
    np.testing.assert_allclose(list(_smooth(iter([2.0] * 5))), [2.0] * 5)
    # By hand: (0.98 * 0.02 * 1 + 0.02 * 3) / (1 - 0.98^2)
    np.testing.assert_allclose(list(_smooth(iter([1.0, 3.0]))), [1.0, (0.0196 + 0.06) / 0.0396])
    assert len(list(_smooth(iter([1.0, 1.0, math.nan, 1.0])))) == 2
    assert len(list(_smooth(iter([1.0, 1e3, 1.0])))) == 1


def test_suggestion_is_where_the_loss_falls_most_steeply():
    rates = [10.0**power for power in range(-6, 1)]
    assert _steepest(rates, [5.0, 4.9, 4.0, 2.0, 1.5, 3.0, 1.6]) == rates[2]
    with pytest.raises(InputError, match="does not fall"):
        _steepest(rates, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    with pytest.raises(InputError, match="not finite at the lowest"):
        _steepest(rates, [1.0])


def test_bounds_are_checked():
    with pytest.raises(InputError, match=r"`low` \(=1\) must be below `high` \(=0.1\)"):
        find_learning_rate(RECIPE, low=1.0, high=0.1)
