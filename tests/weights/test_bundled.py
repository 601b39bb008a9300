"""The trained weights in the package: their files, records and scores on real data, and commands that take a name."""

import dataclasses
import json
import tomllib
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks.bundle import evaluate, round_tensors, score_classes
from eqxcnn import evaluate as evaluate_command
from eqxcnn import hub_connection, load, predict, zoo
from eqxcnn.cost import count_parameters
from eqxcnn.data import open_source
from eqxcnn.errors import InputError
from eqxcnn.registry import build
from eqxcnn.training import list_recipes, load_recipe
from eqxcnn.weights import bundled, save_safetensors, to_tensors
from eqxcnn.weights.bundled import BUNDLED, Bundled, ClassScores, load_bundled_tensors, read_record
from eqxcnn.weights.files import digest_file, load_safetensors
from eqxcnn.weights.published import PUBLISHED
from eqxcnn.weights.tensors import tensor_shapes
from eqxcnn.zoo.__main__ import format_pretrained, main

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(5)
FOLDER = ROOT / "eqxcnn" / "weights" / "bundled"
#: Networks that take longer than a few seconds for a test split.
LARGE = ("catsdogs_cnn", "mnist_cnn")

parametrize_names = pytest.mark.parametrize("name", BUNDLED)
#: Networks whose scoring takes up to half a minute.
LARGEST = ("airbench94", "airbench94_catsdogs", "cifar_cnn", "resnet20")
MARKS = {
    **dict.fromkeys(BUNDLED, ()), **dict.fromkeys(LARGE, pytest.mark.slow),
    **dict.fromkeys(LARGEST, pytest.mark.exhaustive),
}  # fmt: skip

parametrize_with_slow = pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in BUNDLED])


def test_the_files_are_complete_and_small():
    assert sorted(path.stem for path in FOLDER.glob("*.safetensors")) == sorted(BUNDLED)
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 16_000_000
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    matched = {path.name for pattern in packaged["eqxcnn"] for path in (ROOT / "eqxcnn").glob(pattern)}
    assert {f"{name}.{suffix}" for name in BUNDLED for suffix in ("json", "safetensors")} <= matched


@parametrize_names
def test_the_file_is_the_recorded_one(name):
    row = BUNDLED[name]
    assert row.model == name
    assert digest_file(FOLDER / f"{name}.safetensors") == row.sha256
    stored = load_safetensors(row.path)
    model, state = eqx.filter_eval_shape(build, name, image_size=row.preprocess.size, key=KEY)
    assert row.parameters == count_parameters(model)
    assert {key: tensor.shape for key, tensor in stored.items()} == tensor_shapes(model, state)
    assert row.dtype == ("float16" if row.parameters > 500_000 else "float32")
    assert {str(tensor.dtype) for tensor in stored.values() if tensor.ndim > 1} == {row.dtype}
    assert {str(tensor.dtype) for tensor in stored.values() if tensor.ndim <= 1} == {"float32"}


@parametrize_names
def test_the_record_names_a_shipped_recipe_and_its_scores(name):
    row = BUNDLED[name]
    assert row.recipe in list_recipes()
    recipe = load_recipe(row.recipe)
    assert (recipe.model, recipe.data, recipe.test_views) == (name, row.data, row.test_views)
    # The mean of the recalls, weighted by the number of images, is the accuracy.
    hits = sum(round(each.recall * each.images) for each in row.classes)
    assert hits == round(row.accuracy * row.test_images)
    assert row.one_view_accuracy == row.accuracy or row.test_views != "one"
    assert {"command", "wall_seconds", "environment"} <= row.training.keys()


@parametrize_with_slow
def test_the_weights_score_on_the_real_test_split_as_recorded(name, request):
    row = BUNDLED[name]
    classifier = load(name)
    source = open_source(request.getfixturevalue(row.data))
    assert source.info.class_names == classifier.class_names
    split = source.decode("test", preprocess=classifier.preprocess)
    scores = evaluate(classifier, split, "one")
    assert scores.count == row.test_images
    # Another machine may round another way.
    assert scores.accuracy == pytest.approx(row.one_view_accuracy, abs=5e-4)
    if row.test_views == "one":
        found = score_classes(scores.confusion, classifier.class_names)
        for ours, theirs in zip(found, row.classes, strict=True):
            assert dataclasses.astuple(ours)[1:] == pytest.approx(dataclasses.astuple(theirs)[1:], abs=0.005)
        assert scores.loss == pytest.approx(row.loss, rel=1e-2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name, row in BUNDLED.items() if row.test_views != "one"])
def test_the_weights_score_over_the_recipes_views_as_recorded(name, request):
    row, classifier = BUNDLED[name], load(name)
    split = open_source(request.getfixturevalue(row.data)).decode("test", preprocess=classifier.preprocess)
    assert evaluate(classifier, split, row.test_views).accuracy == pytest.approx(row.accuracy, abs=5e-4)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A bundled `mlp` for images of 8x8 pixels; its folder and record replace the package's."""
    model, state = build("mlp", num_classes=10, image_size=8, key=jax.random.key(1))
    monkeypatch.setattr(bundled, "_FOLDER", tmp_path)
    tensors = round_tensors(to_tensors(model, state), "float16")
    sha256 = save_safetensors(tmp_path / "mlp.safetensors", tensors, {"model": "mlp"})
    lenet = BUNDLED["lenet"]
    preprocess = dataclasses.replace(lenet.preprocess, size=(8, 8))
    row = dataclasses.replace(lenet, model="mlp", sha256=sha256, dtype="float16", preprocess=preprocess)
    monkeypatch.setitem(PUBLISHED, "mlp", row)
    monkeypatch.setattr(hub_connection, "why_unreachable", lambda: pytest.fail("the network was used"))
    return row, {key: tensor.astype(np.float32) for key, tensor in tensors.items()}


def test_pretrained_weights_and_size_are_the_bundled_ones(small):
    _, tensors = small
    model, state = zoo.create_model("mlp", pretrained=True, key=KEY)
    found = to_tensors(model, state)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == np.float32


@pytest.mark.usefixtures("small")
def test_a_file_that_has_changed_is_refused():
    row = PUBLISHED["mlp"]
    assert isinstance(row, Bundled)
    content = row.path.read_bytes()
    row.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"mlp.safetensors` is not the file .*: install eqxcnn again"):
        load_bundled_tensors(row)


def test_another_number_of_classes_gets_a_random_head():
    want = load_bundled_tensors(BUNDLED["lenet"])
    model, _ = zoo.create_model("lenet", pretrained=True, num_classes=3, key=KEY)
    fresh, _ = build("lenet", num_classes=3, key=KEY)
    np.testing.assert_array_equal(model.head.weight, fresh.head.weight)
    np.testing.assert_array_equal(model.fc1.weight, want["fc1.weight"])
    features, _ = zoo.create_model("lenet", pretrained=True, num_classes=0, key=KEY)
    np.testing.assert_array_equal(features.fc2.weight, want["fc2.weight"])


def test_a_stem_for_color_gives_gray_images_the_same_response():
    want = load_bundled_tensors(BUNDLED["lenet"])["conv1.weight"]
    model, _ = zoo.create_model("lenet", pretrained=True, in_channels=3, key=KEY)
    np.testing.assert_allclose(model.conv1.weight.sum(axis=2, keepdims=True), want, rtol=1e-5, atol=1e-6)


def test_another_image_size_is_refused_if_a_dense_layer_depends_on_it():
    with pytest.raises(InputError, match=r"does not fit: `fc1.weight` is \[120, 400\], expected \[120, 576\]"):
        zoo.create_model("lenet", pretrained=True, image_size=32, key=KEY)


def test_a_record_can_be_read_again(tmp_path):
    row = dataclasses.replace(BUNDLED["lenet"], classes=(ClassScores("a", 0.5, 0.25, 1 / 3, 7),))
    (tmp_path / "lenet.json").write_text(json.dumps(dataclasses.asdict(row)), encoding="utf-8")
    assert read_record(tmp_path / "lenet.json") == row


def test_predict_takes_a_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ring = np.zeros((28, 28), np.uint8)
    rows, columns = np.indices(ring.shape) - 13.5
    ring[(abs(np.hypot(rows, columns * 1.5) - 8) < 1.5)] = 255
    Image.fromarray(ring).save("digit.png")
    predict.main(["lenet", "digit.png", "--top", "1"])
    assert capsys.readouterr().out.startswith("digit.png: 0 ")


@pytest.mark.slow
def test_evaluate_takes_a_name(mnist, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate_command._find_recipe(Path("lenet")) == load_recipe(BUNDLED["lenet"].recipe)
    assert evaluate_command._find_recipe(Path("resnet18")) is None
    evaluate_command.main(["lenet", "--data", mnist])
    accuracy = float(capsys.readouterr().out.split()[1].rstrip("%"))
    assert accuracy == pytest.approx(100 * BUNDLED["lenet"].accuracy, abs=0.05)


def test_the_zoo_shows_what_a_network_scores(capsys):
    row = BUNDLED["lenet"]
    assert zoo.card("lenet").pretrained is row
    assert zoo.card("nin").pretrained is None
    assert {"lenet", "resnet18"} <= set(zoo.list_models(pretrained=True)) == set(PUBLISHED)
    main(["list", "--pretrained"])
    lines = {words[0]: words for words in map(str.split, capsys.readouterr().out.splitlines()) if words}
    assert lines["lenet"][-7:-1] == ["61,706", "this", "package", "mnist", f"{row.accuracy:.2%}", row.recipe]
    assert lines["resnet18"][-6:] == ["11,689,512", "timm/resnet18.tv_in1k", "-", "-", "-", "-"]
    assert "nin" not in lines


def test_trained_weights_are_described_on_one_line():
    row = dataclasses.replace(
        BUNDLED["lenet"], accuracy=0.9401, one_view_accuracy=0.93, test_views="mirror", recipe="r", data="d", seed=4,
        classes=(ClassScores("a", 1.0, 1.0, 1.0, 1500),),
    )  # fmt: skip
    assert format_pretrained(row) == (
        "in this package, 61,706 parameters, 94.01% of 1,500 test images of d with test views mirror, 93.00% without; "
        "recipe r, seed 4"
    )
    assert format_pretrained(PUBLISHED["resnet18"]) == "on the Hub, timm/resnet18.tv_in1k"
    assert format_pretrained(None) == "none"
