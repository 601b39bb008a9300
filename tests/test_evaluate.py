"""`python -m eqxcnn.evaluate` on image files, which are decoded during evaluation or read from the cache."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxcnn import data, evaluate, zoo
from eqxcnn.data.dataset import TableDataSet
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.saved_classifier import save
from eqxcnn.training import Evaluator
from eqxcnn.weights.tensors import from_tensors, tensor_shapes

NAMES = ("bright", "dark", "none")


@pytest.fixture
def model(tmp_path):
    """The folder of a classifier of 4 x 4 gray images that separates bright images from dark ones."""
    empty = eqx.filter_eval_shape(
        zoo.create_model, "mlp", num_classes=3, image_size=(4, 4), widths=(1,), key=jax.random.key(0)
    )
    weights = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(*empty).items()}
    for name in weights:
        if name.endswith("weight"):
            weights[name][0] = 1
    weights["head.bias"][:] = -3, 3, -9
    network, state = from_tensors(*empty, weights)
    folder = tmp_path / "model"
    save(folder, ImageClassifier(network, state, jnp.zeros(1), jnp.ones(1), "mlp", (4, 4), NAMES, (("widths", (1,)),)))
    return folder


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Class folders with 7 bright and 5 dark images; 2 of the dark images are in the folder of the bright images."""
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    for number in range(12):
        folder = tmp_path / "set" / ("bright" if number < 9 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 6), 250 if number < 7 else 5).save(folder / f"{number:02}.png")
    return tmp_path / "set"


def report(capsys, *arguments) -> list[str]:
    evaluate.main([str(argument) for argument in arguments])
    return capsys.readouterr().out.splitlines()


def test_images_are_evaluated_without_filling_the_cache(model, images, tmp_path, capsys):
    found = report(capsys, model, "--data", images, "--split", "train", "--batch-size", 4)
    assert "images 9" in found[0]
    assert report(capsys, model, "--data", images, "--split", "train") == found
    assert not [path for path in (tmp_path / "cache").glob("*") if path.name != "notes"]
    opened = data.open_source(str(images))
    labels = opened.stream("train", preprocess=_preprocess()).labels
    bright, dark = (found[3 + place].split() for place in (0, 1))
    assert bright[:2] == ["bright", "100.0"]
    assert [int(row[-1]) for row in (bright, dark)] == np.bincount(labels).tolist()


def test_images_in_the_cache_are_not_decoded_again(model, images, capsys, monkeypatch):
    arguments = [model, "--data", images, "--split", "train"]
    streamed = report(capsys, *arguments)
    data.load(str(images), "train", preprocess=_preprocess())
    monkeypatch.setattr(TableDataSet, "stream", lambda *_, **__: pytest.fail("the images were decoded"))
    assert report(capsys, *arguments) == streamed


def _preprocess():
    return data.Preprocess((4, 4), 1)


def test_a_bad_image_stops_the_evaluation_or_is_skipped(model, images, capsys):
    (images / "bright" / "00.png").write_text("no picture")
    arguments = [model, "--data", images, "--split", "train"]
    with pytest.raises(InputError, match=r"row 0 of split `train` cannot be used: .*00\.png`"):
        report(capsys, *arguments)
    capsys.readouterr()
    evaluate.main([*map(str, arguments), "--on-bad-image", "skip"])
    out, err = capsys.readouterr()
    assert "images 8" in out.splitlines()[0]
    assert err.splitlines()[-1] == "skipped 1 of 9 images"


def test_unknown_classes_are_named_before_an_image_is_decoded(model, images, monkeypatch):
    (images / "dark").rename(images / "dusk")
    monkeypatch.setattr(TableDataSet, "stream", lambda *_, **__: pytest.fail("the images were decoded"))
    with pytest.raises(InputError, match=r"not trained on \(dusk\): its classes are bright, dark, none"):
        evaluate.main([str(model), "--data", str(images)])


def test_progress_is_shown_on_a_terminal(model, images, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    assert "images 9" in report(capsys, model, "--data", images, "--split", "train", "--batch-size", 3)[0]
    assert "evaluating on" in err.getvalue()
    assert "9/9" in err.getvalue()


def test_large_images_are_evaluated_in_smaller_batches(model, images, monkeypatch):
    sizes = []
    monkeypatch.setattr(evaluate, "Evaluator", lambda *arguments: sizes.append(arguments[3]) or Evaluator(*arguments))
    evaluate.main([str(model), "--data", str(images)])
    monkeypatch.setattr("eqxcnn.training.evaluate._MAX_PIXELS", 100)
    evaluate.main([str(model), "--data", str(images)])
    evaluate.main([str(model), "--data", str(images), "--batch-size", "9"])
    assert sizes == [500, 6, 9]


def test_the_name_of_published_weights_finds_no_recipe_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("model: lenet\ndata: digits\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "load", lambda folder: None)
    with pytest.raises(InputError, match="`resnet18` does not say which data it was trained on"):
        evaluate.main(["resnet18"])


def test_at_most_two_batches_wait_on_the_device(monkeypatch):
    begun, finished, waiting = [], [0], []

    class Pending:
        """The loss of some batches; it is computed when `block_until_ready` is called."""

        def __init__(self, batches):
            self.batches = batches

        def __add__(self, other):
            return Pending(max(self.batches, getattr(other, "batches", 0)))

        __radd__ = __add__

        def block_until_ready(self):
            finished[0] = max(finished[0], self.batches)

        def __array__(self):
            return np.zeros(())

    def begin(*arguments):
        begun.append(len(arguments))
        waiting.append(len(begun) - finished[0])
        return Pending(len(begun)), jnp.ones((3, 3), jnp.int32), ()

    monkeypatch.setattr(Evaluator, "_compile_sums", lambda self: begin)
    evaluator = Evaluator(jnp.zeros(1), jnp.ones(1), 3, 1)
    evaluator(lambda image: image, None, np.zeros((30, 4, 4, 1), np.uint8), np.zeros(30, np.int32))
    assert (len(waiting), max(waiting)) == (30, 2)
