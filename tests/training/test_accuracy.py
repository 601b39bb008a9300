"""The promise of the first page: what LeNet reaches with no settings, and with its recipe."""

from dataclasses import replace

import pytest

from eqxcnn.training import Recipe, fit, fit_seeds, load_recipe

pytestmark = pytest.mark.slow


def test_lenet_on_the_bundled_digits(tmp_path):
    assert fit(Recipe(model="lenet"), runs=tmp_path).test.accuracy >= 0.97


@pytest.mark.timeout(900)
def test_lenet_on_mnist(tmp_path, mnist):
    result = fit(replace(load_recipe("lenet"), data=mnist), runs=tmp_path)
    assert result.test.count == 10_000
    assert result.test.accuracy >= 0.99


def test_bf16_reaches_the_accuracy_of_float32_within_its_spread(tmp_path):
    recipe = Recipe(model="lenet", data="digits", epochs=8)
    exact = fit_seeds(recipe, 3, runs=tmp_path)
    coarse = fit_seeds(replace(recipe, precision="bf16"), 3, runs=tmp_path)
    assert exact.mean > 0.95
    spread = max(exact.accuracies.values()) - min(exact.accuracies.values())
    # Two seeds may agree by chance: an image is then the least that there is to see.
    assert abs(coarse.mean - exact.mean) <= max(spread, 1 / 359)
