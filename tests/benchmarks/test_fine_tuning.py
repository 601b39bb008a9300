"""The benchmark of fine-tuning, at a small size."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fine_tuning
from eqxcnn.data import Split
from eqxcnn.errors import InputError


def make_split(count=40, side=4):
    """Returns images of two classes, dark and bright."""
    labels = np.arange(count, dtype=np.int32) % 2
    noise = np.random.default_rng(0).integers(0, 100, (count, side, side, 3))
    return Split((noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels, ("cat", "dog"), 0)


@pytest.mark.parametrize("count", [8, 9])
def test_the_seed_draws_as_many_photographs_of_each_class(count):
    split = make_split()
    drawn = [fine_tuning.draw(split, count, seed) for seed in (0, 0, 1)]
    assert [len(each.labels) for each in drawn] == [count] * 3
    assert np.bincount(drawn[0].labels).tolist() == [count - count // 2, count // 2]
    assert len(np.unique(drawn[0].array.reshape(count, -1), axis=0)) == count
    np.testing.assert_array_equal(drawn[0].array, drawn[1].array)
    assert not np.array_equal(drawn[0].array, drawn[2].array)
    # An image keeps its label.
    assert ((drawn[0].array.mean((1, 2, 3)) > 125) == drawn[0].labels).all()


def test_each_row_has_the_accuracies_of_all_seeds(tmp_path, monkeypatch):
    def learn(train, test, seed):
        return 0.5 + 0.1 * seed + len(train.labels) / 1000 if len(test.labels) == 30 else 0.0

    loaded = {"train": make_split(100), "test": make_split(30)}
    monkeypatch.setattr(fine_tuning.eqxcnn.data, "load", lambda data, split, **_: loaded[split])
    monkeypatch.setattr(fine_tuning, "make_ways", lambda shown: {f"{shown} shown": learn})
    out = tmp_path / "out.json"
    fine_tuning.main(["--images", "50", "100", "--shown", "64", "--seeds", "2", "--out", str(out)])
    (table,) = json.loads(out.read_text())["tables"]
    assert [line[:-1] for line in table["lines"]] == [
        ["50", "64 shown", "60.00", "55.00", "65.00"],
        ["100", "64 shown", "65.00", "60.00", "70.00"],
    ]


def test_training_shows_the_same_number_of_photographs():
    ways = fine_tuning.make_ways(320)
    tuned, scratch = (ways[name].args[0] for name in ("fine-tuned", "from scratch"))
    assert (tuned.init_from, tuned.batch_size) == ("airbench94", 32)
    assert (scratch.init_from, scratch.init_images) == (None, 5000)
    assert scratch.learning_rate == pytest.approx(1.5 * 32 / 1024)


@pytest.mark.exhaustive
def test_every_way_learns_dark_from_bright(monkeypatch):
    monkeypatch.setattr(fine_tuning, "_RECIPE", replace(fine_tuning._RECIPE, image_size=(32, 32)))
    train, test = make_split(64, 32), make_split(20, 32)
    for name, learn in fine_tuning.make_ways(640).items():
        assert learn(train, test, 0) > 0.6, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--seeds", "0"], r"`seeds` .=0. must be 1 or more"), (["--images", "50", "8"], r"must be 32, the batch size")],
)
def test_impossible_numbers_are_refused(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        fine_tuning.main([*flags, "--out", str(tmp_path / "out.json")])
