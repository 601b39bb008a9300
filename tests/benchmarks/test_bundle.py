"""`python -m benchmarks.bundle`: the two files that it makes from a run, and the runs that it refuses."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import bundle
from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.recipe.files import to_yaml
from eqxcnn.saved_classifier import save
from eqxcnn.training import load_recipe
from eqxcnn.weights import load_safetensors
from eqxcnn.weights.bundled import ClassScores, read_record

RECORD = {
    "model": "mlp", "parameters": 2_000_000, "data": "mnist", "seed": 3, "command": "train", "epochs": 2,
    "train_images_per_epoch": 10, "train_seconds": 1.5, "wall_seconds": 2.5, "environment": {"cores": 1},
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose classifier always answers `b`; a quarter of the run's gray images are of class `b`."""
    model, state = zoo.create_model("mlp", num_classes=2, image_size=8, key=jax.random.key(0))
    model = jax.tree.map(jnp.zeros_like, model)
    model = eqx.tree_at(lambda net: net.head.bias, model, jnp.array([0.0, 1.0]))
    save(
        tmp_path / "run" / "model", ImageClassifier(model, state, jnp.zeros(1), jnp.ones(1), "mlp", (8, 8), ("a", "b"))
    )
    for number in range(8):
        for part in ("train", "test"):
            path = tmp_path / "mnist" / part / ("b" if number < 2 else "a") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 20 * number + (part == "test"), np.uint8)).save(path)
    recipe = replace(load_recipe("mlp"), data=str(tmp_path / "mnist"))
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    monkeypatch.setattr(bundle, "make_record", lambda *_, **__: {**RECORD, "test_accuracy": 0.25})
    return tmp_path / "run"


def test_the_files_hold_rounded_weights_and_their_scores(run, tmp_path):
    row = bundle.bundle("mlp", run, data=None, destination=tmp_path / "out")
    assert read_record(tmp_path / "out" / "mlp.json") == row
    assert (row.accuracy, row.one_view_accuracy, row.test_images, row.seed) == (0.25, 0.25, 8, 3)
    assert row.classes == (ClassScores("a", 0.0, 0.0, 0.0, 6), ClassScores("b", 0.25, 1.0, 0.4, 2))
    assert row.training["wall_seconds"] == 2.5
    stored = load_safetensors(tmp_path / "out" / "mlp.safetensors")
    assert (str(stored["head.weight"].dtype), str(stored["head.bias"].dtype)) == ("float16", "float32")


def test_small_networks_are_stored_in_full_precision(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        bundle, "make_record", lambda *_, **__: {**RECORD, "test_accuracy": 0.25, "parameters": 500_000}
    )
    assert bundle.bundle("mlp", run, data=None, destination=tmp_path / "out").dtype == "float32"
    assert load_safetensors(tmp_path / "out" / "mlp.safetensors")["head.weight"].dtype == np.float32


def test_another_accuracy_than_that_of_the_run_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "make_record", lambda *_, **__: {**RECORD, "test_accuracy": 0.252})
    with pytest.raises(InputError, match=r"the weights in float16 have an accuracy of 25.00%, but the run .* 25.20%"):
        bundle.bundle("mlp", run, data=None, destination=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_with_own_settings_is_refused(run, tmp_path):
    recipe = replace(load_recipe("mlp"), architecture=("widths=(8,)",))
    (run / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    with pytest.raises(InputError, match=r"`architecture` .* must be empty"):
        bundle.bundle("mlp", run, data=None, destination=tmp_path / "out")
