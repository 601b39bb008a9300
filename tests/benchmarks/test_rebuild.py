"""`python -m benchmarks.results rebuild`: networks that are reproduced, and networks that are not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import rebuild, results
from eqxcnn.data import from_arrays
from eqxcnn.errors import InputError
from eqxcnn.recipe import Recipe
from eqxcnn.training import fit
from eqxcnn.weights import save_safetensors, to_tensors
from eqxcnn.weights.bundled import BUNDLED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The result of a finished run on random images."""
    runs = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 28, 28), np.uint8)
    return fit(
        Recipe(model="mlp", data="own", epochs=1, batch_size=32, validation=0.0),
        data=from_arrays(images, np.arange(80) % 10),
        runs=runs,
    )


def make_rebuilt(**changes):
    return replace(rebuild.Rebuilt("lenet", 0.99, 0.99, True, True), **changes)


@pytest.mark.parametrize(
    ("changes", "is_as_recorded"),
    [
        ({}, True),
        ({"is_same_file": False}, False),
        ({"is_same_file": False, "is_same_layout": False}, True),
        ({"is_same_file": False, "is_same_layout": False, "accuracy": 0.9851}, True),
        ({"is_same_file": False, "is_same_layout": False, "accuracy": 0.9849}, False),
    ],
)
def test_bytes_count_on_the_same_layout_and_accuracy_elsewhere(changes, is_as_recorded):
    rebuilt = make_rebuilt(**changes)
    assert rebuilt.is_as_recorded == is_as_recorded
    assert ("NOT as recorded" in rebuilt.describe()) == (not is_as_recorded)


def test_the_layout_is_that_of_the_record():
    here = rebuild.environment()
    assert rebuild.is_same_layout({"environment": here})
    assert rebuild.is_same_layout({"environment": {**here, "commit": "other", "python": "3.1"}})
    for name in ("jaxlib", "processor", "cores", "devices"):
        assert not rebuild.is_same_layout({"environment": {**here, name: "other"}})


def test_a_network_without_weights_or_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="no weights of `lenett`; did you mean `lenet`"):
        rebuild.rebuild("lenett", tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"must contain the folder `mnist`, on which `lenet` was trained"):
        rebuild.rebuild("lenet", tmp_path, tmp_path)


def test_all_networks_are_built_before_one_is_reported(tmp_path, monkeypatch, capsys):
    found = {"lenet": make_rebuilt(is_same_file=False), "mlp": make_rebuilt(name="mlp")}
    monkeypatch.setattr(rebuild, "rebuild", lambda name, data, runs: found[name])
    with pytest.raises(InputError, match="not as recorded: lenet; the runs are in"):
        results.main(["rebuild", "lenet", "mlp", "--runs", str(tmp_path)])
    assert "mlp: 99.00% (recorded 99.00%), the same bytes" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_weights_are_the_same_file(run, tmp_path):
    from eqxcnn import load

    trained = load(run.folder)
    tensors = to_tensors(trained.model, trained.state)
    digest = save_safetensors(tmp_path / "mlp.safetensors", tensors, {"model": "mlp"})
    training = {"environment": json.loads((run.folder / "environment.json").read_text())}
    row = replace(BUNDLED["mlp"], sha256=digest, accuracy=0.1, training=training)
    rebuilt = rebuild.compare(row, run.folder, "digits")
    assert rebuilt.is_as_recorded
    assert 0 <= rebuilt.accuracy <= 1
    assert not rebuild.compare(replace(row, sha256="0" * 64), run.folder, "digits").is_as_recorded
