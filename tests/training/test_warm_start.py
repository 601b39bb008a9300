"""Tests of the initial weights of a run, which come from a finished run, a file or published weights."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from eqxcnn import load, zoo
from eqxcnn.data import from_arrays
from eqxcnn.errors import InputError
from eqxcnn.training import Recipe, fit, prepare, resume
from eqxcnn.training.runner import EpochRunner
from eqxcnn.training.start import load_warm_start
from eqxcnn.weights import save_safetensors, to_tensors, to_torch
from eqxcnn.weights.fit import fit_tensors

RUN = Recipe(model="airbench94_narrow", data="digits", train_images=64, epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder and the tensors of a finished run with a given normalization."""
    result = fit(replace(RUN, mean=(0.25,), std=(0.5,)), runs=tmp_path_factory.mktemp("runs"))
    classifier = load(result.folder)
    return result.folder, to_tensors(classifier.model, classifier.state)


def load_start(recipe):
    job = prepare(recipe)
    return job, to_tensors(job.make_start().model, job.make_start().state)


@pytest.mark.slow
@pytest.mark.parametrize("subpath", ["", "model", "model/model.safetensors"])
def test_run_starts_from_the_weights_of_another_run(finished_run, subpath):
    folder, tensors = finished_run
    job, actual = load_start(replace(RUN, init_from=str(folder / subpath)))
    assert actual.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(actual[name], tensors[name])
    # A run or model folder also provides the normalization of its weights.
    assert (job.recipe.mean == (0.25,)) == (not subpath.endswith("safetensors"))


@pytest.mark.slow
def test_run_starts_from_trained_weights_by_name():
    classifier = load("lenet")
    tensors = to_tensors(classifier.model, classifier.state)
    job, actual = load_start(Recipe(model="lenet", data="digits", train_images=64, batch_size=32, init_from="lenet"))
    for name in tensors:
        np.testing.assert_array_equal(actual[name], tensors[name])
    assert job.recipe.mean == classifier.preprocess.mean
    with pytest.raises(InputError, match=r"holds a `lenet`, but the recipe trains `mlp`"):
        prepare(Recipe(model="mlp", data="digits", train_images=64, batch_size=32, init_from="lenet"))


def test_a_network_starts_from_the_weights_of_its_other_name():
    photographs = from_arrays(np.zeros((4, 80, 80, 3), np.uint8), ["cat", "dog"] * 2).info
    classifier = load("airbench94")
    start = load_warm_start(Recipe(model="airbench94_catsdogs", init_from="airbench94"), photographs, (80, 80))
    tensors = to_tensors(classifier.model, classifier.state)
    del tensors["head.weight"]
    assert start.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(start.tensors[name], tensor)
    with pytest.raises(InputError, match=r"holds a `airbench94`, but the recipe trains `airbench94_narrow`"):
        load_warm_start(Recipe(model="airbench94_narrow", init_from="airbench94"), photographs, (80, 80))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    """A folder of gray images of three classes."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "test"):
        for level, name in enumerate(("dark", "gray", "light")):
            (root / split / name).mkdir(parents=True)
            for number in range(12):
                image = Image.new("L", (28, 28), 80 * level + number)
                image.save(root / split / name / f"{number}.png")
    return str(root)


@pytest.mark.slow
def test_head_for_other_classes_is_random_and_lookahead_starts_from_the_given_weights(finished_run, three_classes):
    folder, tensors = finished_run
    recipe = replace(RUN, data=three_classes, train_images=None, batch_size=8, init_from=str(folder), lookahead_every=2)
    job, actual = load_start(recipe)
    assert actual["head.weight"].shape == (3, 96)
    for name in tensors.keys() - {"head.weight"}:
        np.testing.assert_array_equal(actual[name], tensors[name])
    np.testing.assert_array_equal(job.make_start().slow[0].blocks[0].conv1.weight, tensors["blocks.0.conv1.weight"])


def test_stem_kernels_are_fitted_to_other_channel_counts():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    tensors = {"stem.weight": kernel, "head.weight": np.ones((10, 8), np.float32)}
    shapes = {"stem.weight": (3, 3, 1, 8), "head.weight": (10, 8)}
    np.testing.assert_allclose(fit_tensors(tensors, shapes, "it")["stem.weight"], kernel.sum(2, keepdims=True))
    four_channels = fit_tensors(tensors, {**shapes, "stem.weight": (3, 3, 4, 8)}, "it")["stem.weight"]
    np.testing.assert_allclose(four_channels[:, :, 3], kernel[:, :, 0] * 0.75, rtol=1e-6)
    with pytest.raises(InputError, match=r"it does not fit: `stem.weight` is \[3, 3, 3, 8\], expected \[5, 5, 3, 8\]"):
        fit_tensors(tensors, {**shapes, "stem.weight": (5, 5, 3, 8)}, "it")
    with pytest.raises(InputError, match=r"it does not fit: `conv1.weight` is missing"):
        fit_tensors(tensors, {**shapes, "conv1.weight": (3, 3, 3, 8)}, "it")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [10, 1000])
def test_torch_weights_are_loaded_except_a_head_for_other_classes(tmp_path, classes):
    model, state = zoo.create_model("resnet18", num_classes=classes, key=jax.random.key(5))
    save_safetensors(tmp_path / "resnet18.safetensors", to_torch("resnet18", model, state), {})
    recipe = Recipe(model="resnet18", data="digits", train_images=20, batch_size=10, epochs=1, image_size=(32, 32))
    info = prepare(Recipe(model="mlp", data="digits")).info
    # The stem in the file takes color images.
    info = replace(info, channels=3)
    warm = load_warm_start(replace(recipe, init_from=str(tmp_path / "resnet18.safetensors")), info, (32, 32))
    tensors = to_tensors(model, state)
    head = {"head.weight", "head.bias"}
    assert tensors.keys() - warm.tensors.keys() == (set() if classes == 10 else head)
    for name, tensor in warm.tensors.items():
        np.testing.assert_array_equal(tensor, tensors[name])
    assert warm.preprocess is None


@pytest.mark.slow
def test_resumed_run_does_not_need_its_initial_weights(finished_run, tmp_path, monkeypatch):
    folder, _ = finished_run
    copy = shutil.copytree(folder, tmp_path / "copy")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(EpochRunner, "finish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(RUN, init_from=str(copy), checkpoint_seconds=0.0), runs=tmp_path / "runs")
    monkeypatch.undo()
    shutil.rmtree(copy)
    (run,) = (tmp_path / "runs").iterdir()
    assert resume(run).test.count == 359


@pytest.mark.slow
def test_only_the_head_changes_when_the_backbone_is_frozen(finished_run, tmp_path):
    folder, tensors = finished_run
    result = fit(replace(RUN, init_from=str(folder), freeze=("backbone",), learning_rate=0.1), runs=tmp_path)
    classifier = load(result.folder)
    after = to_tensors(classifier.model, classifier.state)
    assert {name for name in tensors if not np.array_equal(tensors[name], after[name])} == {"head.weight"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"init_from": "nowhere"},
            "`init_from` .='nowhere'. does not exist: give a finished run, .* or `hub:user/name`",
        ),
        (
            {"model": "mlp", "init_from": "RUN"},
            "holds a `airbench94_narrow`, but the recipe trains `mlp`: set `model` to airbench94_narrow",
        ),
        ({"init_from": "RUN", "architecture": ("widths=(8, 16, 16)",)}, "does not fit: `"),
        (
            {"init_from": "RUN/recipe.yaml"},
            "torch cannot read `.*recipe.yaml`|torch, which is not installed",
        ),
        ({"pretrained": True}, "there are no trained weights for `airbench94_narrow`"),
    ],
)
def test_invalid_initial_weights_are_refused(finished_run, change, message):
    folder, _ = finished_run
    change = {key: value.replace("RUN", str(folder)) if key == "init_from" else value for key, value in change.items()}
    with pytest.raises(InputError, match=message):
        prepare(replace(RUN, **change))


def test_initial_weights_have_one_source():
    with pytest.raises(InputError, match="each set the initial weights: give one of them"):
        Recipe(pretrained=True, init_from="there")
    with pytest.raises(InputError, match="each set the initial weights"):
        Recipe(model="airbench94", init_images=10, init_from="there")
