"""Compares Lookahead with its definition, step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eqxcnn.layers import BatchNorm
from eqxcnn.optim.averages import Lookahead, copy_weights


def test_weights_and_statistics_follow_the_definition():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    lookahead = Lookahead(every=5, decay=0.95, steps=12)
    slow = copy_weights((norm, state))
    move = np.random.default_rng(0).normal(size=(12, 3, 2))
    fast64, slow64 = (np.stack([np.zeros(2), np.zeros(2), np.ones(2)]) for _ in range(2))  # bias, mean, variance
    step = jax.jit(lambda slow, weights, number: lookahead(slow, weights, number))
    for number in range(1, 13):
        fast64 = fast64 + move[number - 1]
        norm = eqx.tree_at(lambda module: module.bias, norm, norm.bias + jnp.float32(move[number - 1, 0]))
        for index, change in zip((norm.running_mean, norm.running_var), move[number - 1, 1:], strict=True):
            state = state.set(index, state.get(index) + jnp.float32(change))
        slow, (norm, state) = step(slow, (norm, state), jnp.int32(number))
        if number % 5 == 0:
            decay = 0.95**5 * (number / 12) ** 3
            slow64 = decay * slow64 + (1 - decay) * fast64
            fast64 = slow64
        if number == 12:
            fast64 = slow64
        actual = np.stack([norm.bias, state.get(norm.running_mean), state.get(norm.running_var)])
        np.testing.assert_allclose(actual, fast64, rtol=1e-5, atol=1e-6)
    assert not np.allclose(fast64, np.stack([np.zeros(2), np.zeros(2), np.ones(2)]) + move.sum(0))
