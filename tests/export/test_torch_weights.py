"""Exported weights: torch's names, metadata, and models without a twin."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import eqxcnn
from eqxcnn import ImageClassifier, export, zoo
from eqxcnn.errors import InputError
from eqxcnn.weights import load_safetensors, to_torch

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def classifier(fast_compilation):
    model, state = zoo.create_model(NAME, num_classes=5, image_size=32, key=jax.random.key(0))
    names = tuple(f"class {index}" for index in range(5))
    mean, std = jnp.full(3, 0.5), jnp.full(3, 0.25)
    return ImageClassifier(eqx.nn.inference_mode(model), state, mean, std, NAME, (32, 32), names)


@pytest.mark.slow
def test_weights_have_torchs_names_and_the_classifiers_metadata(classifier, tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    assert export.export_torch_weights(classifier, path) < 1e-6
    wanted, written = to_torch(NAME, classifier.model, classifier.state), load_safetensors(path)
    assert written.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(written[name], tensor, strict=True)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["torch_twin"] == metadata["model"] == NAME
    assert json.loads(metadata["class_names"]) == list(classifier.class_names)
    assert json.loads(metadata["preprocess"])["size"] == [32, 32]
    with pytest.raises(InputError, match="exists already"):
        export.export_torch_weights(classifier, path)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bits"), [("float16", 11), ("bf16", 8)])
def test_weights_in_half_precision(classifier, precision, bits, tmp_path):
    path = tmp_path / "half.safetensors"
    assert 1e-6 < export.export_torch_weights(classifier, path, precision=precision) < 2.0 ** (1 - bits)
    assert {tensor.dtype.itemsize for tensor in load_safetensors(path).values()} == {2}


def test_models_without_a_twin_are_refused(tmp_path):
    with pytest.raises(InputError, match="`lenet` has no twin in torchvision or timm"):
        export.export_torch_weights(eqxcnn.load("lenet"), tmp_path / "lenet.safetensors")
    assert list(tmp_path.iterdir()) == []
