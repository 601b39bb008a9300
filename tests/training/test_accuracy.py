"""Checks the accuracy of LeNet with default settings, with its recipe and in bfloat16."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from eqxcnn.training import Recipe, fit, fit_seeds, load_recipe

pytestmark = pytest.mark.slow


def test_lenet_on_the_bundled_digits(tmp_path):
    assert fit(Recipe(model="lenet"), runs=tmp_path).test.accuracy >= 0.97


def test_lenet_on_mnist(tmp_path, mnist):
    # The first of the training images, and half of the recipe's epochs; docs/results.md has the accuracy with all.
    for file in Path(mnist).rglob("*.parquet"):
        parquet.write_table(parquet.read_table(file).slice(0, 10_000), tmp_path / file.name)
    result = fit(replace(load_recipe("lenet"), data=str(tmp_path), epochs=3), runs=tmp_path / "runs")
    assert result.test.count == 10_000
    assert result.test.accuracy >= 0.97


@pytest.mark.exhaustive
def test_bf16_accuracy_is_within_the_spread_of_float32(tmp_path):
    recipe = Recipe(model="lenet", data="digits", epochs=5)
    float32 = fit_seeds(recipe, 2, runs=tmp_path)
    bf16 = fit_seeds(replace(recipe, precision="bf16"), 2, runs=tmp_path)
    assert float32.mean > 0.95
    spread = max(float32.accuracies.values()) - min(float32.accuracies.values())
    # The seeds may agree by chance, so allow a difference of at least one test image.
    assert abs(bf16.mean - float32.mean) <= max(spread, 1 / 359)
