import jax
import numpy as np
import pytest

from eqxcnn.layers import initializers
from eqxcnn.runtime.compile import jit_once

SHAPE = (3, 3, 32, 64)
FAN_IN, FAN_OUT = 9 * 32, 9 * 64
#: The standard deviation of a standard normal distribution truncated at 2.
TRUNCATED_STD = 0.8796
CASES = {
    # name: (standard deviation, largest absolute value)
    "he_normal": ((2 / FAN_IN) ** 0.5, 2 / TRUNCATED_STD * (2 / FAN_IN) ** 0.5),
    "he_normal_fan_in": ((2 / FAN_IN) ** 0.5, np.inf),
    "he_normal_fan_out": ((2 / FAN_OUT) ** 0.5, np.inf),
    "he_uniform": ((2 / FAN_IN) ** 0.5, (6 / FAN_IN) ** 0.5),
    "lecun_normal": ((1 / FAN_IN) ** 0.5, 2 / TRUNCATED_STD * (1 / FAN_IN) ** 0.5),
    "torch_uniform": (FAN_IN**-0.5 / 3**0.5, FAN_IN**-0.5),
    "uniform_fan_out": (FAN_OUT**-0.5 / 3**0.5, FAN_OUT**-0.5),
    "kaiming_uniform_fan_out": (FAN_OUT**-0.5, (3 / FAN_OUT) ** 0.5),
    "transformer_normal": (0.02 * TRUNCATED_STD, 0.04),
}


@pytest.fixture(scope="module")
def drawn():
    """One kernel from each initializer."""
    draw = jit_once(lambda key: {name: getattr(initializers, name)(key, SHAPE) for name in CASES})
    return draw(jax.random.key(0))


@pytest.mark.parametrize("name", CASES)
def test_standard_deviation_and_largest_value(name, drawn):
    std, limit = CASES[name]
    values = np.asarray(drawn[name])
    np.testing.assert_allclose(values.std(), std, rtol=0.02)
    np.testing.assert_allclose(values.mean(), 0, atol=0.05 * std)
    largest = np.abs(values).max()
    if np.isinf(limit):
        assert largest > 3.5 * std  # a truncated distribution ends at 2.3 standard deviations
    else:
        assert 0.99 * limit < largest <= limit * (1 + 1e-4)
