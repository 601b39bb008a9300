"""The benchmark of fine-tuning, at a small size."""

import json
from dataclasses import replace

import pytest

from benchmarks import fine_tuning
from eqxcnn.errors import InputError


@pytest.mark.slow
def test_the_benchmark_trains_from_scratch_and_from_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "_SOURCE", shrink(fine_tuning._SOURCE))
    monkeypatch.setattr(fine_tuning, "_RECIPE", shrink(fine_tuning._RECIPE))
    monkeypatch.setitem(fine_tuning._FROM_SCRATCH, "init_images", 100)
    flags = ["--data", "digits", "--source-data", "digits", "--train-images", "400", "--epochs", "1"]
    fine_tuning.main([*flags, "--out", str(tmp_path / "out.json")])
    (table,) = json.loads((tmp_path / "out.json").read_text())["tables"]
    assert [row[0] for row in table["lines"]] == ["from scratch", "fine-tuned", "head only"]
    assert float(table["lines"][0][1]) == 1
    assert float(table["lines"][2][1]) > 1
    assert all(0 < float(row[2]) < 100 for row in table["lines"])


def shrink(recipe):
    """Returns the recipe with a narrower network, for small gray images."""
    moments = {"mean": (0.3,), "std": (0.3,)} if recipe.mean else {}
    return replace(
        recipe, init_images=100 * bool(recipe.init_images), image_size=(28, 28), architecture=("widths=(8, 8, 8)",),
        **moments,
    )  # fmt: skip


def test_zero_seeds_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"`seeds` .=0. must be 1 or more"):
        fine_tuning.main(["--seeds", "0", "--out", str(tmp_path / "out.json")])
