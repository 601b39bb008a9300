"""Tests of the report: its figures, its HTML page and its error messages."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.inference import ImageClassifier
from eqxcnn.plots import figures, learning_curves
from eqxcnn.recipe.files import to_yaml
from eqxcnn.report import write, write_report
from eqxcnn.report.__main__ import main
from eqxcnn.report.gather import TestPredictions, augmented_examples, first_weights, predict_test_split, read_run
from eqxcnn.saved_classifier import save
from eqxcnn.training import Evaluator, Recipe

#: The training figures in the page; `training` combines them in one figure.
CURVES = {"loss", "accuracy", "epoch_time"}
#: Class names that HTML or mathtext would misread if they were not escaped.
MARKUP = ("<b>bold", "a&amp;$")
ALL = CURVES | {"confusion", "kernels", "wrong", "heat"}


def make_row(number, **more):
    row = {"epoch": number, "train_loss": 2 / number, "train_accuracy": 0.5, "seconds": 1.5}
    return row | more


@cache
def classifier_of(model, names, channels=1, side=28):
    size = (side, side)
    key = jax.random.key(0)
    built, state = zoo.create_model(model, num_classes=len(names), in_channels=channels, image_size=size, key=key)
    half = jnp.full(channels, 0.5)
    return ImageClassifier(built, state, half, half, model, size, tuple(names))


def make_run(folder, recipe, rows, classifier=None):
    """Writes a run folder like that of a training run, without training."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    (folder / "environment.json").write_text(json.dumps({"jax": "0.0", "devices": ["<cpu>"], "commit": None}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if classifier is not None:
        save(folder / "model", classifier)
    return folder


DIGITS = Recipe(model="lenet", data="digits", epochs=2, image_size=(28, 28))


@pytest.fixture(scope="module")
def reported_run(tmp_path_factory):
    """A finished run of an untrained LeNet on the digits, with its report."""
    rows = [make_row(number, validation_loss=3 / number, validation_accuracy=0.4) for number in (1, 2)]
    rows.append({"test_loss": 1.0, "test_accuracy": 0.5, "test_count": 359})
    folder = make_run(tmp_path_factory.mktemp("runs") / "lenet", DIGITS, rows, classifier_of("lenet", "0123456789"))
    assert write_report(folder) == folder / "plots" / "report.html"
    return folder


class Page(HTMLParser):
    """Parses a report: its external references, embedded images, tags, text and table cells."""

    def __init__(self, folder):
        super().__init__()
        self.references, self.images, self.rows, self.tags, self.text = [], {}, [], set(), ""
        self.alternatives, self._figure = {}, ""
        self._in_cell = False
        self.feed((folder / "plots" / "report.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.references += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "figure":
            self._figure = attributes["id"]
        if tag == "img":
            self.alternatives[self._figure] = attributes["alt"]
            self.images[self._figure] = base64.b64decode(attributes["src"].split("base64,")[1])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data


# Figures


def axes_of(figure):
    return figure.axes[0]


def test_curves_show_training_and_validation_series():
    axes = axes_of(
        learning_curves.curves([1, 2, 3], [10.0, 60.0, 99.0], [20.0, 50.0, 70.0], "Accuracy (%)", maximum=100.0)
    )
    train, validation = axes.get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[1, 10], [2, 60], [3, 99]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 20], [2, 50], [3, 70]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("Epoch", "Accuracy (%)", "")
    assert axes.get_ylim()[1] == 100


def test_curves_differ_in_more_than_color():
    train, validation = axes_of(learning_curves.curves([1, 2], [1.0, 2.0], [1.0, 2.0], "Loss")).get_lines()
    looks = [(line.get_linestyle(), line.get_marker(), to_hex(line.get_color())) for line in (train, validation)]
    assert looks == [("-", "o", "#0072b2"), ("--", "s", "#d55e00")]


@pytest.mark.parametrize("epochs", [1, 2, 7, 100, 1000])
def test_curves_have_integer_epoch_ticks_and_few_markers(epochs):
    numbers = range(1, epochs + 1)
    axes = axes_of(learning_curves.curves(numbers, np.linspace(2, 0, epochs).tolist(), None, "Loss (nats)"))
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [round(tick) for tick in ticks]
    assert 1 <= len(ticks) <= 9
    assert min(ticks) >= 1
    (line,) = axes.get_lines()
    assert len(numbers[:: line.get_markevery()]) <= 12
    assert axes.get_ylim()[0] >= 0


def test_nan_losses_are_left_out_of_the_curve():
    nan = float("nan")
    figure = learning_curves.curves([1, 2], [2.0, nan], [nan, nan], "Loss (nats)")
    figure.draw_without_rendering()
    assert 0 <= axes_of(figure).get_ylim()[0] < 2 < axes_of(figure).get_ylim()[1]


@pytest.mark.parametrize(
    ("seconds", "heights", "label"),
    [([2.0, 0.5], [2.0, 0.5], "Time per epoch (s)"), ([900.0, 300.0], [15.0, 5.0], "Time per epoch (min)")],
)
def test_epoch_times_are_bars_in_seconds_or_minutes(seconds, heights, label):
    axes = axes_of(learning_curves.epoch_times([1, 2], seconds))
    assert [bar.get_height() for bar in axes.patches] == heights
    assert axes.get_ylabel() == label


def test_training_figure_has_all_curves_and_epoch_times():
    figure = learning_curves.training(
        [1, 2], [([2.0, 1.0], [2.5, 1.5], "Loss (nats)", 9.0), ([50.0, 60.0], None, "Accuracy (%)", 100.0)], [3.0, 2.0]
    )
    loss, accuracy, times = figure.axes
    assert [line.get_ydata().tolist() for line in loss.get_lines()] == [[2.0, 1.0], [2.5, 1.5]]
    assert [line.get_ydata().tolist() for line in accuracy.get_lines()] == [[50.0, 60.0]]
    assert [bar.get_height() for bar in times.patches] == [3.0, 2.0]
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss (nats)", "Accuracy (%)", "Time per epoch (s)"]


def cells(axes):
    return {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}


def test_confusion_matrix_is_in_percent_of_the_true_class():
    axes = axes_of(figures.confusion_matrix(np.array([[9, 1], [0, 40]]), ["cat", "dog"]))
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[90, 10], [0, 100]])
    assert cells(axes) == {(0, 0): "90.0%\n9", (0, 1): "10.0%\n1", (1, 1): "100.0%\n40"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")


def test_class_without_images_has_an_empty_row():
    axes = axes_of(figures.confusion_matrix(np.array([[2, 0], [0, 0]]), ["a", "b"]))
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[100, 0], [0, 0]])


@pytest.mark.parametrize(
    ("classes", "numbers", "names"), [(10, 10, True), (20, 20, True), (30, 0, True), (100, 0, False)]
)
def test_confusion_matrix_drops_numbers_then_names_for_many_classes(classes, numbers, names):
    labels = [f"name {index}" for index in range(classes)]
    axes = axes_of(figures.confusion_matrix(np.eye(classes, dtype=int), labels))
    assert len(axes.texts) == numbers
    assert ([label.get_text() for label in axes.get_xticklabels()] == labels) == names


def panels(figure):
    return [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes if axes.get_images()]


def test_color_kernels_are_scaled_symmetrically_about_mid_gray():
    weights = np.zeros((1, 2, 3, 2), np.float32)
    weights[0, 0, 0, 0], weights[0, 1, 2, 1] = 4, -2
    first, second = panels(figures.kernels(weights))
    np.testing.assert_allclose(first, [[[1, 0.5, 0.5], [0.5, 0.5, 0.5]]])
    np.testing.assert_allclose(second, [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.25]]])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_kernels_without_rgb_channels_are_channel_means_on_a_symmetric_scale(channels):
    weights = np.zeros((2, 2, channels, 3), np.float32)
    weights[1, 0, :, 2] = -np.arange(1, channels + 1)
    figure = figures.kernels(weights)
    np.testing.assert_allclose(panels(figure)[2], [[0, 0], [-(channels + 1) / 2, 0]])
    norm = figure.axes[0].get_images()[0].norm
    assert (norm.vmin, norm.vmax) == (-(channels + 1) / 2, (channels + 1) / 2)


def test_at_most_64_kernels_are_shown():
    assert len(panels(figures.kernels(np.ones((3, 3, 3, 100), np.float32)))) == 64


def test_augmented_images_are_shown_beside_their_originals():
    originals = np.full((3, 2, 2, 3), [[[[0]]], [[[51]]], [[[255]]]], np.uint8)
    augmented = np.arange(9).reshape(3, 3, 1, 1, 1) / 10 * np.ones((3, 3, 2, 2, 3))
    shown = [panel[0, 0, 0] for panel in panels(figures.augmentation(originals, augmented))]
    np.testing.assert_allclose(sorted(shown), sorted([0, 0.2, 1, *np.arange(9) / 10]))
    grid = [
        axes for axes in figures.augmentation(originals, augmented).axes if axes.get_subplotspec().rowspan.start == 1
    ]
    row = [axes.get_images()[0].get_array()[0, 0, 0] for axes in grid]
    np.testing.assert_allclose(row, [0.2, 0.3, 0.4, 0.5])
    # A random crop may have a size of its own.
    assert {panel.shape[0] for panel in panels(figures.augmentation(originals, augmented[:, :, :1, :1]))} == {1, 2}


def test_mistakes_show_true_class_predicted_class_and_confidence():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    figure = figures.mistakes(images, ["$x^{$", "cat"], ["a name that is far too long", "<b>"], [0.999, 0.5])
    figure.draw_without_rendering()  # fails if the label is parsed as mathtext
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["$x^{$, predicted as\na name that is … (99.9%)", "cat, predicted as\n<b> (50.0%)"]
    assert panels(figure)[0].shape == (4, 4, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_heat_maps_are_drawn_below_their_images_over_gray_copies(dtype):
    images = np.zeros((5, 2, 4, 3), dtype)
    images[4] = [255, 0, 51] if dtype is np.uint8 else [1, 0, 0.2]
    heat = np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 2, 4)
    figure = figures.heat_maps(images, heat, ["cat", "$x^{$", *"abc"], list("vwxyz"), [0.5] * 5)
    figure.draw_without_rendering()  # fails if the label is parsed as mathtext
    grid = {tuple(axes.get_subplotspec().rowspan)[:1] + tuple(axes.get_subplotspec().colspan)[:1]: axes
            for axes in figure.axes}  # fmt: skip
    # Four columns, so the fifth image is in the third row, and its heat in the fourth.
    assert [grid[place].get_title() for place in [(0, 0), (0, 1), (2, 0)]] == [
        "cat, predicted as\nv (50.0%)", "$x^{$, predicted as\nw (50.0%)", "c, predicted as\nz (50.0%)",
    ]  # fmt: skip
    (image,), (gray, overlay) = grid[2, 0].get_images(), grid[3, 0].get_images()
    np.testing.assert_allclose(image.get_array()[0, 0], [1, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(gray.get_array()[0, 0], [0.4, 0.4, 0.4], atol=1e-6)
    np.testing.assert_array_equal(overlay.get_array(), heat[4])
    assert (overlay.norm.vmin, overlay.norm.vmax) == (0, 1)
    assert not any(grid[place].get_images() for place in [(2, 1), (3, 1)])


def every_figure():
    noise = np.random.default_rng(0)
    yield learning_curves.curves([1, 2], [1.0, 2.0], [1.0, 2.0], "Loss")
    yield learning_curves.epoch_times([1, 2], [1.0, 2.0])
    yield learning_curves.training([1, 2], [([1.0, 2.0], None, "Loss", 3.0)], [1.0, 2.0])
    for classes in (2, 10, 30, 100):
        yield figures.confusion_matrix(np.ones((classes, classes), int), ["class"] * classes)
    yield figures.kernels(noise.normal(size=(3, 3, 1, 6)).astype(np.float32))
    yield figures.augmentation(np.zeros((3, 4, 4, 1), np.uint8), np.zeros((3, 3, 4, 4, 1)))
    yield figures.mistakes(np.zeros((1, 4, 4, 1), np.uint8), ["a"], ["b"], [0.9])
    yield figures.heat_maps(np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4), np.float32), ["a"], ["b"], [0.9])


def test_figures_fit_a_paper_page_and_keep_the_global_style():
    before = dict(matplotlib.rcParams)
    for figure in every_figure():
        assert figure.get_size_inches()[0] <= 7
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 8
        assert figure.get_suptitle() == ""
    assert dict(matplotlib.rcParams) == before


# Data of the figures


def make_predictions(labels, probabilities, size=(2, 2)):
    labels = np.asarray(labels, np.int32)
    return TestPredictions(
        np.zeros((len(labels), *size, 1), np.uint8), labels, np.log(np.asarray(probabilities, np.float32))
    )


def test_predictions_are_counted_per_class():
    predictions = make_predictions(
        [0, 0, 0, 1], [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.25, 0.7, 0.05], [0.9, 0.05, 0.05]]
    )
    assert predictions.accuracy == 0.5
    assert predictions.loss == pytest.approx(-np.log([0.8, 0.6, 0.25, 0.05]).mean(), rel=1e-5)
    np.testing.assert_array_equal(predictions.confusion, [[2, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(predictions.per_class()[0], (2 / 3, 2 / 3, 2 / 3, 3))
    assert predictions.per_class()[1] == (0, 0, 0, 1)
    assert np.isnan(predictions.per_class()[2][:3]).all()
    np.testing.assert_array_equal(predictions.mistakes(5), [3, 2])  # most confident first
    np.testing.assert_array_equal(predictions.mistakes(1), [3])


def test_correct_images_are_of_as_many_classes_as_possible():
    labels = [1, 1, 0, 2, 1, 0, 3]
    probabilities = np.eye(4)[[1, 1, 0, 2, 1, 2, 3]] * 0.9 + 0.025  # the sixth image is misclassified
    predictions = make_predictions(labels, probabilities)
    np.testing.assert_array_equal(predictions.correct(4), [0, 2, 3, 6])
    np.testing.assert_array_equal(predictions.correct(9), [0, 2, 3, 6, 1, 4])
    assert len(make_predictions([0], [[0.1, 0.9]]).correct(4)) == 0


@pytest.mark.slow
def test_report_agrees_with_the_evaluator():
    classifier = classifier_of("lenet", "0123456789")
    # Of 359 images, so that the last batch is not full.
    predictions = predict_test_split(classifier, replace(DIGITS, eval_batch_size=200))
    evaluator = Evaluator(classifier.mean, classifier.std, 10, batch_size=359)
    scores = evaluator(classifier.model, classifier.state, predictions.images, predictions.labels)
    np.testing.assert_array_equal(predictions.confusion, scores.confusion)
    assert predictions.loss == pytest.approx(scores.loss, rel=1e-5)


@pytest.mark.slow
def test_first_weights_returns_the_first_layer():
    lenet, mlp = classifier_of("lenet", "0123456789"), classifier_of("mlp", MARKUP, channels=3, side=16)
    np.testing.assert_array_equal(first_weights(lenet), lenet.model.conv1.weight)
    weights = first_weights(mlp)
    assert weights.shape == (16, 16, 3, 128)
    assert weights[2, 5, 1, 7] == mlp.model.hidden[0].weight[7, (2 * 16 + 5) * 3 + 1]
    resized = ImageClassifier(mlp.model, mlp.state, mlp.mean, mlp.std, "mlp", (30, 30), ("a", "b"))
    assert first_weights(resized) is None


def test_augmented_examples_follow_the_recipe():
    recipe = Recipe(model="lenet", data="digits", augment=("brightness(0.25)",), seed=3)
    originals, augmented = augmented_examples(recipe)
    assert (originals.shape, augmented.shape) == ((3, 28, 28, 1), (3, 3, 28, 28, 1))
    expected = np.clip(originals[:, None] / 255 + 0.25, 0, 1)
    np.testing.assert_allclose(augmented, np.broadcast_to(expected, augmented.shape), atol=1e-6)
    assert augmented_examples(Recipe(data="digits")) is None
    _, crops = augmented_examples(replace(recipe, augment=("random_resized_crop(size=(7, 9))",)))
    assert crops.shape == (3, 3, 7, 9, 1)


# Page


def test_finished_run_has_all_figures_as_files_and_in_the_page(reported_run):
    page, plots = Page(reported_run), reported_run / "plots"
    assert set(page.images) == ALL
    for name, data in page.images.items():
        is_vector = name in CURVES | {"confusion"}
        assert (plots / f"{name}.{'svg' if is_vector else 'png'}").read_bytes() == data
        assert (plots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "heat map" in page.alternatives["heat"]
    assert len(set(page.alternatives.values()) - set(page.images)) == len(page.images)
    assert "does not augment" in page.text
    assert not (plots / "augment.png").exists()


def test_page_loads_no_external_resources(reported_run):
    page = Page(reported_run)
    assert [source for source in page.references if not source.startswith("data:image/")] == []
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_page_shows_recipe_environment_and_classes(reported_run):
    page = Page(reported_run)
    assert (reported_run / "recipe.yaml").read_text() in page.text
    assert ["devices", "<cpu>"] in page.rows
    assert ["commit", "-"] in page.rows
    head = page.rows.index(["class", "precision (%)", "recall (%)", "F1 (%)", "test images"])
    classes = page.rows[head + 1 : head + 11]
    assert [row[0] for row in classes] == list("0123456789")
    assert sum(int(row[4]) for row in classes) == 359
    predictions = predict_test_split(classifier_of("lenet", "0123456789"), DIGITS)
    assert [row[2] for row in classes] == [f"{100 * recall:.1f}" for _, recall, _, _ in predictions.per_class()]
    assert ["Test accuracy", f"{predictions.accuracy:.2%} of 359 images"] in page.rows


def test_finished_run_with_an_own_network_has_curves_and_its_logged_test(tmp_path):
    tested = {"test_loss": 0.25, "test_accuracy": 0.875, "test_count": 1000, "wall_seconds": 3.0}
    recipe = Recipe(model="own", data="no/such-data", epochs=1)
    folder = make_run(tmp_path / "run", recipe, [make_row(1), tested])
    write_report(folder)
    page = Page(folder)
    assert set(page.images) == CURVES
    assert "of this run came from Python, and a report cannot load them, so the page shows only logged" in page.text
    assert ["Test accuracy", "87.50% of 1,000 images"] in page.rows
    assert ["Test loss", "0.2500 nats"] in page.rows


def test_unfinished_run_has_curves_without_its_data(tmp_path):
    recipe = Recipe(model="mlp", data="no/such-data", epochs=9)
    folder = make_run(tmp_path / "run", recipe, [make_row(1)])
    (folder / "plots").mkdir()
    (folder / "plots" / "confusion.png").write_bytes(b"of an earlier report")
    (folder / "plots" / "notes.txt").write_text("mine")
    write_report(folder)
    page = Page(folder)
    assert set(page.images) == CURVES
    assert "This run is not finished: there is no trained model yet, so the page shows only logged" in page.text
    assert ["Training", "1 of 9 epochs in 1.5 s"] in page.rows
    files = {path.name for path in (folder / "plots").iterdir()}
    figure_files = {f"{name}.{kind}" for name in CURVES | {"training"} for kind in ("png", "svg")}
    assert files == figure_files | {"report.html", "notes.txt"}


def test_run_without_epochs_has_a_page(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(), [])
    (folder / "environment.json").unlink()
    write_report(folder)
    assert "No epoch is logged yet" in Page(folder).text


@pytest.mark.slow
def test_class_names_with_markup_are_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    for split, name, number in [(s, n, i) for s in ("train", "test") for n in MARKUP for i in range(3)]:
        path = tmp_path / "data" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    recipe = Recipe(
        model="mlp", data=str(tmp_path / "data"), epochs=1, image_size=(16, 16), augment=("flip_horizontal",)
    )
    folder = make_run(tmp_path / "run", recipe, [make_row(1)], classifier_of("mlp", MARKUP, channels=3, side=16))
    write_report(folder)
    page = Page(folder)
    assert set(page.images) == ALL - {"heat"} | {"augment"}
    assert "No heat maps: Grad-CAM needs a network that computes its scores from feature maps." in page.text
    assert "b" not in page.tags
    assert [row[0] for row in page.rows if row[-1] == "3"] == list(MARKUP)


def test_moved_data_set_gives_the_same_figures(tmp_path, reported_run):
    recipe = Recipe(model="lenet", data="no/such-data", epochs=1, image_size=(28, 28))
    folder = make_run(tmp_path / "run", recipe, [make_row(1)], classifier_of("lenet", "0123456789"))
    write_report(folder, data="digits")
    page, expected = Page(folder), Page(reported_run)
    assert "data: no/such-data\n" in page.text
    for name in ALL - CURVES:
        assert page.images[name] == expected.images[name]


def test_page_states_that_all_test_images_are_classified_correctly(reported_run, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", DIGITS, [make_row(1)], classifier_of("lenet", "0123456789"))
    correct = make_predictions(range(10), np.eye(10) * 0.9 + 0.01, (28, 28))
    monkeypatch.setattr(write, "predict_test_split", lambda *_: correct)
    write_report(folder)
    page = Page(folder)
    assert set(page.images) == ALL - {"wrong"}
    assert "all 10 test images are classified correctly" in page.text


# Command line and errors


def test_command_prints_the_path_of_the_page(tmp_path, capsys):
    folder = make_run(tmp_path / "run", Recipe(), [make_row(1)])
    main([str(folder)])
    assert capsys.readouterr().out == f"{folder / 'plots' / 'report.html'}\n"


def test_show_augment_accepts_a_recipe_and_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: lenet\ndata: no/such-data\naugment: [brightness(0.5)]\n")
    main(
        ["--show-augment", "--recipe", "mine.yaml", "--data", "digits", "--augment", "random_crop(2)", "flip_vertical"]
    )
    assert capsys.readouterr().out == "augment.png\n"
    assert Image.open("augment.png").size[0] == 680  # 3.4 inches at 200 dpi


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give a run's folder, or --show-augment"),
        (["nowhere"], "`nowhere` is not a run folder"),
        (["--show-augment"], "no augmentation to show"),
        (["--show-augment", "--augment", "flip"], "there is no augmentation `flip`"),
        (["--show-augment", "--recipe", "nosuch"], "no recipe named `nosuch`"),
        (
            ["--show-augment", "--augment", "flip_vertical", "--out", "x.doc"],
            r"`out` \(='x.doc'\) must have one of the suffixes",
        ),
        (["run", "--show-augment"], r"`run` \(='run'\) cannot be given with --show-augment"),
        (["run", "--out", "x.png"], "need --show-augment"),
    ],
)
def test_command_errors_are_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        main(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("recipe.yaml", "model: nosuch", "nosuch"),
        ("metrics.jsonl", "no json\n", "line 1 of `.*metrics.jsonl` cannot be read as JSON"),
        ("metrics.jsonl", "5\n", "line 1 of `.*metrics.jsonl` must be a JSON object of numbers"),
        ("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl` lacks `train_loss` of epoch 1"),
        (
            "metrics.jsonl",
            json.dumps(make_row(1, train_loss="low")) + "\n",
            "line 1 of `.*metrics.jsonl` must be a JSON object of numbers",
        ),
        ("environment.json", "5", "environment.json` must hold a JSON object"),
        ("environment.json", "[" * 100_000, "environment.json` cannot be read as JSON: it has more than 50 levels"),
        ("recipe.yaml", "[" * 1000, "recipe.yaml` is not valid YAML: line 1 has more than 50 levels"),
        ("model/config.json", "{}", "config.json"),
        ("plots", "a file", "plots.* cannot be written"),
    ],
)
def test_damaged_run_files_are_named(tmp_path, name, text, sentence):
    folder = make_run(tmp_path / "run", Recipe(), [make_row(1)])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=sentence) as error:
        write_report(folder)
    assert "\n" not in str(error.value)


def test_plots_show_control_characters_of_class_names_escaped():
    figure = figures.confusion_matrix(np.eye(2, dtype=np.int64), ("\x1b[31m", "a\nb"))
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "\\x1b[31m" in texts
    assert "a\\nb" in texts


def test_names_cannot_act_as_html_or_hide_text(tmp_path):
    hostile = "<script>alert(1)</script>\x1b[31m\u202eevil"
    recipe = replace(Recipe(), data=hostile)
    folder = make_run(tmp_path / "run", recipe, [make_row(1)])
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202eevil" in page


def test_truncated_metrics_line_is_ignored(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(), [make_row(1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tra')
    assert read_run(folder).series("train_loss") == [2]


def test_data_with_other_classes_are_refused(tmp_path):
    folder = make_run(tmp_path / "run", DIGITS, [make_row(1)], classifier_of("lenet", ("cat", "dog")))
    with pytest.raises(InputError, match=r"has the classes 0, 1, .* learned cat, dog"):
        write_report(folder)


def test_exit_codes(tmp_path):
    command = [sys.executable, "-m", "eqxcnn.report", "nowhere"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("error: `nowhere` is not a run folder")
    assert process.stdout == ""
    with pytest.raises(SystemExit, match="2"):
        main(["--show-augmnet"])
