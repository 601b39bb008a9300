import jax
import numpy as np
import pytest

from eqxcnn.layers import initializers

SHAPE = (3, 3, 32, 64)
FAN_IN, FAN_OUT = 9 * 32, 9 * 64


@pytest.mark.parametrize(
    ("name", "std", "limit"),
    [
        ("he_normal", (2 / FAN_IN) ** 0.5, 2 / 0.8796 * (2 / FAN_IN) ** 0.5),
        ("he_normal_fan_in", (2 / FAN_IN) ** 0.5, np.inf),
        ("he_normal_fan_out", (2 / FAN_OUT) ** 0.5, np.inf),
        ("he_uniform", (2 / FAN_IN) ** 0.5, (6 / FAN_IN) ** 0.5),
        ("lecun_normal", (1 / FAN_IN) ** 0.5, 2 / 0.8796 * (1 / FAN_IN) ** 0.5),
        ("torch_uniform", FAN_IN**-0.5 / 3**0.5, FAN_IN**-0.5),
        ("uniform_fan_out", FAN_OUT**-0.5 / 3**0.5, FAN_OUT**-0.5),
        ("kaiming_uniform_fan_out", FAN_OUT**-0.5, (3 / FAN_OUT) ** 0.5),
        ("transformer_normal", 0.02 * 0.8796, 0.04),
    ],
)
def test_standard_deviation_and_largest_value(name, std, limit):
    values = np.asarray(getattr(initializers, name)(jax.random.key(0), SHAPE))
    np.testing.assert_allclose(values.std(), std, rtol=0.02)
    np.testing.assert_allclose(values.mean(), 0, atol=0.05 * std)
    largest = np.abs(values).max()
    if np.isinf(limit):
        assert largest > 3.5 * std  # a normal distribution without truncation
    else:
        assert 0.99 * limit < largest <= limit * (1 + 1e-4)
