"""ONNX models: scores in onnxruntime, graph, metadata, precision, and errors."""

import json
import sys
from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import eqxcnn
from eqxcnn import ChannelsFirst, ImageClassifier, export
from eqxcnn.errors import InputError
from eqxcnn.export.check import choose_images
from eqxcnn.export.onnx import writing


def run(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels})[0]


@pytest.fixture(scope="module")
def exported(lenet, tmp_path_factory, fast_compilation):
    path = tmp_path_factory.mktemp("exported") / "lenet.onnx"
    assert export.export_onnx(lenet, path) < 1e-5
    return path


def test_scores_are_the_classifiers_for_any_number_of_images(lenet, exported):
    images = choose_images(lenet)
    for batch in (1, 3, 32):
        np.testing.assert_allclose(run(exported, images[:batch]), lenet(images[:batch]), atol=1e-4)


def test_the_model_is_valid_and_has_the_metadata_of_the_classifier(lenet, exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["model"] == model.graph.name == "lenet"
    assert metadata["eqxcnn"] == model.producer_version == eqxcnn.__version__
    assert metadata["outputs"] == "logits"
    assert json.loads(metadata["class_names"]) == list(lenet.class_names)
    how = json.loads(metadata["preprocess"])
    assert tuple(how["size"]) == lenet.image_size
    assert tuple(how["mean"]) == lenet.preprocess.mean
    shapes = {
        each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for each in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"pixels": ["batch", 28, 28, 1], "logits": ["batch", 10]}


def test_layers_become_one_operation_each(exported):
    counts = Counter(node.op_type for node in onnx.load(exported).graph.node)
    assert (counts["Conv"], counts["MaxPool"], counts["MatMul"], counts["Relu"]) == (2, 2, 3, 4)
    # Convolutions contain their biases; the only transposition is before the flattening.
    assert (counts["Add"], counts["Transpose"]) == (3, 1)
    assert counts.total() <= 22


def test_equal_classifiers_give_equal_files(lenet, exported, tmp_path):
    export.export_onnx(lenet, tmp_path / "lenet.onnx")
    assert (tmp_path / "lenet.onnx").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("batch", [1, 3])
def test_probabilities_for_a_fixed_batch(lenet, batch, tmp_path):
    path = tmp_path / "lenet.onnx"
    export.export_onnx(lenet, path, batch=batch, outputs="probabilities")
    images = choose_images(lenet)[:batch]
    np.testing.assert_allclose(run(path, images), jax.nn.softmax(lenet(images)), atol=1e-5)
    model = onnx.load(path)
    assert model.graph.output[0].name == "probabilities"
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [batch, 28, 28, 1]


def test_half_precision(lenet, tmp_path):
    path = tmp_path / "lenet.onnx"
    assert 1e-6 < export.export_onnx(lenet, path, precision="float16") < 1e-2
    graph = onnx.load(path).graph
    kernels = {node.input[1] for node in graph.node if node.op_type in ("Conv", "MatMul")}
    types = [array.data_type for array in graph.initializer if array.name in kernels]
    assert types == [onnx.TensorProto.FLOAT16] * 5
    with pytest.raises(InputError, match=r"`precision` \(=bf16\) must be float32 or float16: onnxruntime"):
        export.export_onnx(lenet, tmp_path / "other.onnx", precision="bf16")


def test_large_weights_are_in_a_second_file(lenet, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_MAX_BYTES", 10_000)
    path = tmp_path / "large.onnx"
    export.export_onnx(lenet, path)
    assert {file.name for file in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    assert path.stat().st_size < 20_000
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    (tmp_path / "other").touch()
    assert modes == {(tmp_path / "other").stat().st_mode}
    images = choose_images(lenet)
    np.testing.assert_allclose(run(path, images), lenet(images), atol=1e-4)


def test_missing_packages_are_named(lenet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs the package `onnxruntime`: .*pip install 'eqxcnn\[onnx\]'"):
        export.export_onnx(lenet, tmp_path / "lenet.onnx")


def classify_with(network):
    zeros, ones = jnp.zeros(3), jnp.ones(3)
    return ImageClassifier(network, None, zeros, ones, "my.Net", (8, 10), tuple("abcd"))


class Many(eqx.Module):
    """A network with operations that the zoo does not use."""

    weight: jax.Array
    positions: jax.Array

    def __call__(self, image):
        rows = image.reshape(40, 2, 3).transpose(1, 0, 2) + self.positions
        rows = jnp.concatenate([rows, jnp.flip(self.positions[:, :2], 1) * jnp.ones((2, 1, 1))], axis=1)
        both = jnp.einsum("ank,amk->anm", rows, jnp.tanh(rows))
        outer = jnp.where(both > 0.5, jnp.log1p(both**2), -jnp.abs(both)) + jnp.sqrt(jnp.exp(-both) + 1)
        outer = jnp.pad(outer, ((0, 0), (1, 1), (0, 2)), constant_values=0.5).max(axis=0)
        sums = jnp.clip(outer, -1, 1).min(1) + jax.nn.gelu(outer.sum(1)) + outer[:, ::4].mean(1) ** 3
        parts = jnp.split(sums, 2)
        return self.weight @ (jax.nn.silu(parts[0]) + jax.nn.softplus(parts[1]))


class Checkpointed(eqx.Module):
    """A network whose activations are recomputed in the backward pass."""

    network: Many

    def __call__(self, image):
        return jax.checkpoint(Many.__call__)(self.network, image)


@pytest.fixture(scope="module")
def own_networks():
    keys = jax.random.split(jax.random.key(0), 4)
    layers = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 6, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.leaky_relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.AvgPool2d(2, 1),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(6 * 3 * 4, 4, key=keys[1]),
        ]
    )
    # 40 rows and two more, padded by two: 44 sums in two parts.
    many = Many(jax.random.normal(keys[2], (4, 22)), jax.random.normal(keys[3], (1, 40, 3)))
    return {"channels first": ChannelsFirst(layers), "many operations": many, "checkpoint": Checkpointed(many)}


@pytest.mark.parametrize("name", ["channels first", "many operations", "checkpoint"])
def test_other_networks(own_networks, name, tmp_path):
    classifier = classify_with(own_networks[name])
    assert export.export_onnx(classifier, tmp_path / "own.onnx") < 1e-5


class Sorted(eqx.Module):
    def __call__(self, image):
        return jnp.sort(image.ravel())[:4]


class Looped(eqx.Module):
    def __call__(self, image):
        return jax.lax.scan(lambda carry, row: (carry + row.sum(), None), jnp.zeros(4), image)[0]


@pytest.mark.parametrize(("network", "operation"), [(Sorted(), "sort"), (Looped(), "scan")])
def test_operations_without_a_conversion_are_named(network, operation, tmp_path):
    with pytest.raises(InputError, match=f"`my.Net` uses the operation `{operation}`, .*: export it as stablehlo"):
        export.export_onnx(classify_with(network), tmp_path / "own.onnx")
    assert list(tmp_path.iterdir()) == []
