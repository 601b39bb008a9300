"""Learning-rate factors: numbers and patterns have limits, and reading them takes linear time."""

import math
from time import perf_counter

import pytest

from eqxcnn.errors import InputError
from eqxcnn.optim.factors import Factor, parse_factors


def test_entries_are_parsed():
    factors = parse_factors(["*norm*.bias=64", " a = 1.5e-1 for 3 epochs", "b=0 for 1. epoch"], ["stem, blocks.0"])
    assert factors == (
        Factor("*norm*.bias", 64.0, math.inf),
        Factor("a", 0.15, 3.0),
        Factor("b", 0.0, 1.0),
        Factor("stem", 0.0, setting="freeze"),
        Factor("blocks.0", 0.0, setting="freeze"),
    )


@pytest.mark.parametrize(
    ("entries", "frozen", "message"),
    [
        (["a=nan"], [], "cannot be read"),
        (["a=-1"], [], "cannot be read"),
        (["a=1e400"], [], "must have a factor from 0 to 1000000"),
        (["a=" + "9" * 400], [], "must have a factor from 0 to 1000000"),
        ([f"a=1 for {'9' * 400} epochs"], [], "must have .* epochs from 0 to 1000000"),
        (["*" * 11 + "=1"], [], r"is too long: a pattern has at most 200 characters and 10 `\*`"),
        (["a" * 201 + "=1"], [], "`learning_rate_factors` .* is too long"),
        ([], ["a*" * 11], "`freeze` .* is too long"),
        (["a=1"] * 100, ["a," * 101], "hold 201 patterns: give at most 200"),
    ],
)
def test_values_out_of_bounds_are_refused(entries, frozen, message):
    with pytest.raises(InputError, match=message):
        parse_factors(entries, frozen)


@pytest.mark.parametrize(
    "entry", ["a=" + "1" * 200_000 + "!", "a=1" + " " * 200_000 + "!", "a=1 for " + "1" * 200_000, "a" * 200_000]
)
def test_reading_a_long_entry_takes_linear_time(entry):
    started = perf_counter()
    with pytest.raises(InputError):
        parse_factors([entry])
    # A quadratic expression takes minutes.
    assert perf_counter() - started < 2
