"""The promise of the first page: what LeNet reaches with no settings, and with its recipe."""

from dataclasses import replace

import pytest

from eqxcnn.training import Recipe, fit, load_recipe

pytestmark = pytest.mark.slow


def test_lenet_on_the_bundled_digits(tmp_path):
    assert fit(Recipe(model="lenet"), runs=tmp_path).test.accuracy >= 0.97


@pytest.mark.timeout(900)
def test_lenet_on_mnist(tmp_path, mnist):
    result = fit(replace(load_recipe("lenet"), data=mnist), runs=tmp_path)
    assert result.test.count == 10_000
    assert result.test.accuracy >= 0.99
