"""`python -m benchmarks.zoo_speed`: a small measurement, and the calls that it times."""

import json

import numpy as np
import pytest

from benchmarks import zoo_speed
from eqxcnn.errors import InputError
from eqxcnn.training import load_recipe
from eqxcnn.weights.bundled import BUNDLED


@pytest.mark.slow
def test_a_small_measurement(tmp_path):
    out = tmp_path / "zoo_speed.json"
    zoo_speed.main(["--models", "mlp", "--rounds", "2", "--seconds", "0.01", "--out", str(out)])
    written = json.loads(out.read_text())
    assert list(written["times"]) == ["mlp, training", "mlp, prediction, 64 images", "mlp, prediction, 1 image"]
    speeds = written["images_per_second"]
    assert {name: 1000 / times[0] for name, times in written["times"].items()} == pytest.approx(speeds, rel=2e-3)
    # A batch of 64 costs less per image than 64 calls.
    assert speeds["mlp, prediction, 64 images"] > 2 * speeds["mlp, prediction, 1 image"]


@pytest.fixture
def fake_steps(monkeypatch):
    """Counts the images in each call of the training steps, and trains nothing."""
    counts = []

    def compile_steps(recipe, devices):
        def steps(setup, train, batches):
            assert (recipe.model, setup.data[0].dtype) == ("lenet", np.uint8)
            counts.append(batches.size)
            return train

        return steps

    monkeypatch.setattr(zoo_speed, "compile_steps", compile_steps)
    return counts


def test_training_is_a_call_of_the_recipes_steps(fake_steps):
    run, images = zoo_speed.build_training(BUNDLED["lenet"])
    run(3)
    assert images == load_recipe("lenet_best").batch_size == 64
    assert fake_steps == [64] * 3


def test_predictions_are_those_of_the_loaded_classifier(monkeypatch):
    shapes = []

    def load(name):
        def classify(pixels):
            shapes.append((name, pixels.shape))
            return np.zeros((len(pixels), 10))

        return classify

    monkeypatch.setattr(zoo_speed, "load", load)
    zoo_speed.build_prediction(BUNDLED["airbench94"], 3)(2)
    assert shapes == [("airbench94", (3, 32, 32, 3))] * 2


def test_networks_without_trained_weights_are_refused():
    with pytest.raises(InputError, match=r"`models` \(='nin'\) must be networks with trained weights: airbench94, "):
        zoo_speed.main(["--models", "nin"])
