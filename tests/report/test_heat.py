"""Bright places in the heat maps of a report, for a network in which each score depends on one quarter of the image."""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn import catalog, zoo
from eqxcnn.inference import ImageClassifier
from eqxcnn.recipe import Recipe
from eqxcnn.recipe.files import to_yaml
from eqxcnn.report import write, write_report
from eqxcnn.report.heat import compute_heat
from eqxcnn.saved_classifier import save
from eqxcnn.types import Variant

sys.path.append(str(Path(__file__).parent))
from test_report import Page

pytestmark = pytest.mark.usefixtures("fast_compilation")

SIZE = (4, 8)
#: Top left, top right, bottom left and bottom right quarter of an image.
QUARTERS = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((2, 4))).astype(np.float32)
NAMES = ("1st quarter", "2nd quarter", "3rd quarter", "4th quarter")


class Quarters(eqx.Module):
    """A network with one channel per class: the image in one quarter, and 0 elsewhere.

    A score is `scale` times a channel's mean.
    """

    scale: jax.Array

    def __init__(self, num_classes=4, in_channels=1, image_size=SIZE, *, key):
        self.scale = jnp.full(1, 9.0)

    def features(self, image, state, *, key):
        calls.append(image.shape)
        return (image.mean(2)[..., None] * jnp.moveaxis(jnp.asarray(QUARTERS), 0, -1),), state

    def __call__(self, image, state, *, key):
        maps, state = self.features(image, state, key=key)
        return (self.scale * maps[-1]).mean((0, 1)), state


#: Shapes of the images for which `Quarters.features` was traced.
calls = []
ROW = Variant(make=Quarters, input=(*SIZE, 1), num_classes=4, params=1, source="", task="quarters", strides=(1,))


@pytest.fixture
def quarters(monkeypatch):
    """Registers `Quarters` in the zoo."""
    monkeypatch.setattr(catalog, "_added", {})
    zoo.register("quarters", ROW)
    yield "quarters"
    catalog.families.cache_clear()


def make_classifier(model, channels=1):
    built, state = zoo.create_model(model, num_classes=4, in_channels=channels, image_size=SIZE, key=jax.random.key(0))
    return ImageClassifier(built, state, jnp.zeros(channels), jnp.ones(channels), model, SIZE, NAMES)


def make_run(folder, model, channels, bright, **settings):
    """Writes a finished run, and its data: for each class, a test image for each bright quarter in `bright[class]`."""
    data = folder / "data"
    for split, pairs in {"train": {name: [0] for name in NAMES}, "test": bright}.items():
        for name, numbers in pairs.items():
            (data / split / name).mkdir(parents=True)
            for place, quarter in enumerate(numbers):
                pixels = np.where(QUARTERS[quarter] > 0, 255, 51).astype(np.uint8)
                pixels = pixels if channels == 1 else np.stack([pixels] * 3, -1)
                Image.fromarray(pixels).save(data / split / name / f"{place}.png")
    recipe = Recipe(model=model, data=str(data), epochs=1, image_size=SIZE, **settings)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    row = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "seconds": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    save(folder / "model", make_classifier(model, channels))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each call of `figures.heat_maps`."""
    arguments, draw = [], write.figures.heat_maps
    monkeypatch.setattr(write.figures, "heat_maps", lambda *each: arguments.append(each) or draw(*each))
    return arguments


@pytest.mark.parametrize("decode", ["once", "stream"])
@pytest.mark.parametrize("channels", [1, 3])
def test_heat_is_where_the_predicted_class_comes_from(tmp_path, quarters, drawn, channels, decode):
    bright = {name: [number] for number, name in enumerate(NAMES)}
    bright[NAMES[1]] = [1, 3]  # the second of these images is a mistake
    folder = make_run(tmp_path, quarters, channels, bright, decode=decode)
    write_report(folder)
    ((images, heat, actual, predicted, probabilities),) = drawn
    np.testing.assert_array_equal(heat, QUARTERS[[0, 1, 2, 3, 3]])
    np.testing.assert_array_equal(images.max(-1), np.where(QUARTERS[[0, 1, 2, 3, 3]] > 0, 255, 51))
    assert images.shape[-1] == channels
    assert actual == [*NAMES, "2nd quarter"]
    assert predicted == [*NAMES, "4th quarter"]
    # A quarter of the positions counts, so the scores are 9 / 4 for the bright quarter and 9 / 4 / 5 for the others.
    np.testing.assert_allclose(probabilities, 1 / (1 + 3 * np.exp(-1.8)), rtol=1e-5)
    page = Page(folder)
    assert page.alternatives["heat"].startswith("Test images with their true and predicted classes, and the Grad-CAM")
    assert page.images["heat"] == (folder / "plots" / "heat.png").read_bytes()
    assert "Where the network looks" in page.text


@pytest.mark.parametrize(("bright", "count"), [([2, 2, 2, 2, 2, 2], 4), ([3, 3, 3, 3, 3, 3], 4), ([2], 1), ([3], 1)])
def test_images_may_be_few_all_correct_or_all_wrong(tmp_path, quarters, drawn, bright, count):
    write_report(make_run(tmp_path, quarters, 1, {NAMES[2]: bright, **{name: [] for name in NAMES[:2]}, NAMES[3]: []}))
    ((images, heat, actual, predicted, _),) = drawn
    assert len(images) == count
    np.testing.assert_array_equal(heat, QUARTERS[bright[:count]])
    assert (actual, predicted) == ([NAMES[2]] * count, [NAMES[bright[0]]] * count)


def test_all_images_share_one_compiled_program(quarters):
    classifier = make_classifier(quarters)
    images = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 1), np.uint8)
    calls.clear()
    # `Quarters` promotes ranks; heat maps must not fail for a network that evaluation accepts.
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        first = compute_heat(classifier, images[:1], np.array([2]))
        assert calls
        calls.clear()
        heat = compute_heat(classifier, images, np.array([2, 0, 1, 2, 3, 0]))
    assert calls == []
    np.testing.assert_array_equal(heat[0], first[0])
    np.testing.assert_allclose(heat[4], QUARTERS[3] * images[4, ..., 0] / images[4, 2:, 4:].max(), rtol=1e-5)


def test_a_perceptron_gets_a_sentence_and_loses_an_earlier_picture(tmp_path):
    folder = make_run(tmp_path, "mlp", 1, {name: [0] for name in NAMES})
    (folder / "plots").mkdir()
    (folder / "plots" / "heat.png").write_bytes(b"of an earlier report")
    write_report(folder)
    page = Page(folder)
    assert "heat" not in page.images
    assert "No heat maps: Grad-CAM needs a network that computes its scores from feature maps." in page.text
    assert not (folder / "plots" / "heat.png").exists()
