import json
import pickletools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier, save

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


@pytest.fixture
def classifier():
    model, state = zoo.create_model("lenet", num_classes=3, key=jax.random.key(0))
    mean, std = jnp.array([0.25]), jnp.array([0.5])
    return ImageClassifier(model, state, mean, std, "lenet", (28, 28), ("ant", "bee", "cat"))


def test_loading_gives_the_saved_classifier_to_the_bit(tmp_path, classifier):
    save(tmp_path / "model", classifier)
    for folder in (tmp_path, tmp_path / "model", str(tmp_path)):
        loaded = eqxcnn.load(folder)
        np.testing.assert_array_equal(loaded(PIXELS), classifier(PIXELS))
        assert loaded.class_names == ("ant", "bee", "cat")


def test_scores_are_forward_of_the_normalized_images(classifier):
    images = eqxcnn.normalize(jnp.asarray(PIXELS), classifier.mean, classifier.std)
    expected, _ = eqxcnn.forward(classifier.model, classifier.state, images, key=None)
    np.testing.assert_allclose(classifier(PIXELS), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier(PIXELS.astype(np.float32) / 255), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier(PIXELS[1]), expected[1], rtol=1e-4, atol=1e-5)


def test_top_k_names_the_likeliest_first(classifier):
    (row,) = classifier.top_k(PIXELS[0], k=3)
    probabilities = jax.nn.softmax(classifier(PIXELS[0]))
    assert [name for name, _ in row] == [("ant", "bee", "cat")[i] for i in np.argsort(-np.asarray(probabilities))]
    np.testing.assert_allclose(sum(value for _, value in row), 1, rtol=1e-5)
    assert len(classifier.top_k(PIXELS, k=99)[2]) == 3


def test_prepare_brings_a_picture_of_any_size_to_the_models(classifier):
    array = classifier.prepare(Image.new("RGB", (50, 40), (255, 0, 0)))
    assert (array.shape, array.dtype) == ((28, 28, 1), np.uint8)
    assert classifier(array).shape == (3,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 28, 28), np.uint8), r"`images` of shape \(1, 28, 28\) must be .*channels last"),
        (np.zeros((2, 32, 32, 1), np.uint8), r"\(2, 32, 32, 1\) must be \(batch, 28, 28, 1\)"),
        (np.zeros((28, 28, 1), np.int32), "int32 must be uint8, or floating point"),
    ],
)
def test_images_of_another_form_are_refused(classifier, images, message):
    with pytest.raises(InputError, match=message):
        classifier(images)


def test_a_model_of_another_architecture_than_published_is_loaded(tmp_path):
    given = {"widths": (8, 8, 8), "score_scale": 0.5}
    model, state = zoo.create_model("airbench94", num_classes=2, key=jax.random.key(0), **given)
    rgb = jnp.full(3, 0.5)
    saved = ImageClassifier(model, state, rgb, rgb, "airbench94", (32, 32), ("a", "b"), tuple(given.items()))
    save(tmp_path, saved)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    loaded = eqxcnn.load(tmp_path)
    assert loaded.architecture == tuple(given.items())
    np.testing.assert_array_equal(loaded(pixels), saved(pixels))


def test_no_file_is_a_pickle_and_the_model_is_looked_up_by_name(tmp_path, classifier):
    save(tmp_path, classifier)
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"."):
            list(pickletools.genops(path.read_bytes()))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": "os.system"}))
    with pytest.raises(InputError, match=r"no model named `os\.system`"):
        eqxcnn.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": "ant"}, "must hold `class_names`"),
        ({"mean": None}, "must hold `mean`"),
        ({"format": 2}, "is of format 2, and this eqxcnn reads 1"),
        ({"std": [1.0, 1.0]}, "`mean` and `std` for each channel"),
        ({"class_names": ["ant", "bee"]}, r"head\.weight.*expected"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, classifier, change, message):
    save(tmp_path, classifier)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        eqxcnn.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no trained model: it has no config"):
        eqxcnn.load(tmp_path)
    with pytest.raises(InputError, match=r"there is no folder"):
        eqxcnn.load(tmp_path / "nowhere")
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"its training has not finished"):
        eqxcnn.load(tmp_path)
