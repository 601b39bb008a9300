"""The benchmark of fine-tuning, at a small size."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import fine_tuning
from eqxcnn.errors import InputError


def test_the_head_trains_for_as_long_as_the_whole_network(tmp_path, monkeypatch):
    fitted = []

    def fake_fit(recipe, *, runs):
        fitted.append(recipe)
        # An epoch of the head alone takes a quarter of the time.
        seconds = 0.5 if recipe.freeze else 2.0
        accuracy = 0.5 + 0.25 * recipe.seed
        rows = [{"seconds": 9.0}, {"seconds": seconds}, {"wall_seconds": 10.0 + recipe.seed}]
        return SimpleNamespace(folder="runs/source", metrics=rows, test=SimpleNamespace(accuracy=accuracy))

    monkeypatch.setattr(fine_tuning, "fit", fake_fit)
    fine_tuning.main(["--data", "digits", "--seeds", "2", "--epochs", "3", "--out", str(tmp_path / "out.json")])
    source, timed, timed_head, *trained = fitted
    assert (source.model, source.data) == ("airbench94_narrow", "cifar10")
    assert (timed.epochs, timed_head.epochs, timed_head.freeze) == (2, 2, ("backbone",))
    assert [recipe.seed for recipe in trained] == [0, 1] * 3
    assert [recipe.init_from for recipe in trained[::2]] == [None, "runs/source", "runs/source"]
    assert [recipe.init_images for recipe in trained[::2]] == [source.init_images, 0, 0]
    assert [recipe.epochs for recipe in trained[::2]] == [3, 3, 12]
    (table,) = json.loads((tmp_path / "out.json").read_text())["tables"]
    assert table["lines"] == [
        ["from scratch", "3.0", "62.50", "10.5"],
        ["fine-tuned", "3.0", "62.50", "10.5"],
        ["head only", "12.0", "62.50", "10.5"],
    ]


@pytest.mark.exhaustive
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
