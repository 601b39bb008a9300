"""The images of a run: their size, resizing and normalization, as set by the recipe, the weights or the data."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn.data import EncodedImages
from eqxcnn.data.row_sources import StreamRows
from eqxcnn.errors import InputError
from eqxcnn.images import Preprocess
from eqxcnn.recipe import Recipe
from eqxcnn.training import evaluate as evaluation
from eqxcnn.training import fit, prepare
from eqxcnn.training.preprocessing import resolve_geometry, resolve_normalization


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """40 wide images of two classes, with the class's color in the middle and noise at both ends."""
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, color in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            width = 40 + number
            pixels = rng.integers(0, 256, (16, width, 3), np.uint8)
            pixels[:, width // 2 - 8 : width // 2 + 8] = color
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return str(tmp_path / "data")


def make_recipe(**settings):
    settings = {"image_size": (16, 16), "batch_size": 8, "epochs": 1, "validation": 0.0, **settings}
    return Recipe(model="mlp", **settings)


def test_photographs_are_cropped_and_images_of_one_size_stretched(photographs):
    job = prepare(make_recipe(data=photographs))
    assert (job.recipe.resize, job.recipe.crop_fraction, job.recipe.interpolation) == ("crop", 1.0, "bilinear")
    images, names = job.splits.train.images, job.info.class_names
    colors = {"red": (200, 20, 20), "blue": (20, 20, 200)}
    for image, label in zip(images, job.splits.train.labels, strict=True):
        assert np.abs(image[:, 1:-1].astype(int) - colors[names[label]]).max() <= 1
    stretched = prepare(make_recipe(data=photographs, resize="stretch")).splits.train.images
    assert np.abs(stretched.astype(int) - images).max() > 50
    assert prepare(make_recipe(data="digits")).recipe.resize == "stretch"


def test_settings_replace_what_the_weights_expect(photographs):
    info = prepare(make_recipe(data=photographs)).info
    warm = Preprocess((224, 224), 3, "crop", 0.875, "bicubic", (0.5,) * 3, (0.2,) * 3)

    def resolve(**settings):
        found = resolve_geometry(make_recipe(data=photographs, **settings), info, warm)
        return found.resize, found.crop_fraction, found.interpolation

    assert resolve() == ("crop", 0.875, "bicubic")
    assert resolve(crop_fraction=0.5, interpolation="nearest") == ("crop", 0.5, "nearest")
    assert resolve(resize="stretch") == ("stretch", 1.0, "bicubic")
    assert resolve(resize="pad") == ("pad", 1.0, "bicubic")
    with pytest.raises(InputError, match=r"`crop_fraction` .* must be 1 with `resize`"):
        make_recipe(data=photographs, resize="pad", crop_fraction=0.5)


def test_resumed_runs_of_older_versions_keep_stretching(photographs):
    info = prepare(make_recipe(data=photographs)).info
    assert resolve_geometry(make_recipe(data=photographs), info, None, is_resumed=True).resize == "stretch"


def test_a_trained_classifier_prepares_images_as_its_evaluation_does(photographs, tmp_path):
    settings = {"resize": "crop", "crop_fraction": 0.8, "interpolation": "bicubic"}
    recipe = make_recipe(data=photographs, **settings)
    result = fit(recipe, runs=tmp_path / "runs")
    classifier = eqxcnn.load(result.folder)
    assert classifier.preprocess == prepare(recipe).preprocess
    test = prepare(recipe).splits.test
    folder = f"{photographs}/{test.class_names[test.labels[0]]}"
    found = [classifier.prepare(path) for path in Path(folder).iterdir()]
    assert any(np.array_equal(test.images[0], image) for image in found)
    evaluator = evaluation.Evaluator(classifier.mean, classifier.std, 2)
    assert evaluator(classifier.model, classifier.state, test.images, test.labels).loss == result.test.loss


def test_weights_bring_their_preprocessing_to_a_new_run(photographs, tmp_path):
    first = fit(make_recipe(data=photographs, crop_fraction=0.8, interpolation="bicubic"), runs=tmp_path / "runs")
    job = prepare(make_recipe(data=photographs, init_from=str(first.folder)))
    assert job.preprocess == eqxcnn.load(first.folder).preprocess
    assert (job.recipe.crop_fraction, job.recipe.interpolation) == (0.8, "bicubic")


def test_the_normalization_of_a_stream_is_measured_on_its_first_images(monkeypatch):
    monkeypatch.setattr("eqxcnn.training.preprocessing._SAMPLE", 20)
    read = []

    def open_rows():
        for number in range(300):
            read.append(number)
            file = io.BytesIO()
            Image.new("L", (4, 4), number % 200).save(file, "PNG")
            yield {"bytes": file.getvalue(), "path": None}

    rows, how = np.arange(300, dtype=np.int32), Preprocess((4, 4), 1)
    images = EncodedImages(StreamRows(open_rows, 300, "train"), "train", rows, how, 1, "stop")
    found = resolve_normalization(Recipe(), how, None, images, rows)
    assert found.mean == pytest.approx((np.arange(20).mean() / 255,), abs=1e-5)
    assert len(read) <= 20 + 8  # threads may be a few rows ahead
