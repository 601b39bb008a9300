"""The benchmark of fine-tuning, from end to end at a small size."""

import json
from dataclasses import replace

import pytest

from benchmarks import fine_tuning
from eqxcnn.errors import InputError


@pytest.mark.slow
def test_the_benchmark_trains_from_scratch_and_from_a_run(tmp_path):
    small = ["--data", "digits", "--source-data", "digits", "--train-images", "400", "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "_SOURCE", small_one(fine_tuning._SOURCE))
        patch.setattr(fine_tuning, "_RECIPE", small_one(fine_tuning._RECIPE))
        patch.setitem(fine_tuning._FROM_SCRATCH, "init_images", 100)
        fine_tuning.main([*small, "--out", str(tmp_path / "out.json")])
    (table,) = json.loads((tmp_path / "out.json").read_text())["tables"]
    assert [row[0] for row in table["lines"]] == ["from scratch", "fine-tuned", "only the head"]
    assert float(table["lines"][0][1]) == 1
    assert float(table["lines"][2][1]) > 1
    assert all(0 < float(row[2]) < 100 for row in table["lines"])


def small_one(recipe):
    """The recipe for little gray images."""
    moments = {"mean": (0.3,), "std": (0.3,)} if recipe.mean else {}
    return replace(recipe, init_images=100 * bool(recipe.init_images), image_size=(28, 28), **moments)


def test_no_seed_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"`seeds` .=0. must be 1 or more"):
        fine_tuning.main(["--seeds", "0", "--out", str(tmp_path / "out.json")])
