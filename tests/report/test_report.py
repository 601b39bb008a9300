"""Reports: what the pictures show, what the page holds, and what a wrong call is told."""

import base64
import json
import subprocess
import sys
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
from eqxcnn.inference import ImageClassifier, save
from eqxcnn.plots import figures, learning_curves
from eqxcnn.recipe.files import to_yaml
from eqxcnn.report import gather, write, write_report
from eqxcnn.report.__main__ import main
from eqxcnn.report.gather import TestPredictions, augmented_examples, first_weights, predict_test_split, read_run
from eqxcnn.training import Evaluator, Recipe

#: What the page shows of the course; `training` has them in one.
CURVES = {"loss", "accuracy", "epoch_time"}
#: Class names that a page or a formula might swallow.
MARKUP = ("<b>bold", "a&amp;$")
ALL = CURVES | {"confusion", "kernels", "wrong"}


def epoch(number, **more):
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
    """A run's folder as training leaves it, without the training."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    (folder / "environment.json").write_text(json.dumps({"jax": "0.0", "devices": ["<cpu>"], "commit": None}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if classifier is not None:
        save(folder / "model", classifier)
    return folder


DIGITS = Recipe(model="lenet", data="digits", epochs=2, image_size=(28, 28))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A finished run on the digits, by an untrained LeNet, with its report."""
    rows = [epoch(each, validation_loss=3 / each, validation_accuracy=0.4) for each in (1, 2)]
    rows.append({"test_loss": 1.0, "test_accuracy": 0.5, "test_count": 359})
    folder = make_run(tmp_path_factory.mktemp("runs") / "lenet", DIGITS, rows, classifier_of("lenet", "0123456789"))
    assert write_report(folder) == folder / "plots" / "report.html"
    return folder


class Page(HTMLParser):
    """What a browser would fetch or run, what it would show as pictures, and the cells of its tables."""

    def __init__(self, folder):
        super().__init__()
        self.fetched, self.pictures, self.rows, self.tags, self.text = [], {}, [], set(), ""
        self._in_cell = False
        self.feed((folder / "plots" / "report.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        self.fetched += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            self.pictures[attributes["alt"]] = base64.b64decode(attributes["src"].split("base64,")[1])
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


# The pictures


def axes_of(figure):
    return figure.axes[0]


def test_curves_show_both_series_against_the_epochs():
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
def test_curves_of_any_length_have_whole_epochs_on_their_axis_and_few_markers(epochs):
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


def test_a_loss_that_is_no_number_is_left_out_of_the_curve():
    nan = float("nan")
    figure = learning_curves.curves([1, 2], [2.0, nan], [nan, nan], "Loss (nats)")
    figure.draw_without_rendering()
    assert 0 <= axes_of(figure).get_ylim()[0] < 2 < axes_of(figure).get_ylim()[1]


@pytest.mark.parametrize(
    ("seconds", "heights", "label"),
    [([2.0, 0.5], [2.0, 0.5], "Time per epoch (s)"), ([900.0, 300.0], [15.0, 5.0], "Time per epoch (min)")],
)
def test_epoch_times_are_bars_in_the_fitting_unit(seconds, heights, label):
    axes = axes_of(learning_curves.epoch_times([1, 2], seconds))
    assert [bar.get_height() for bar in axes.patches] == heights
    assert axes.get_ylabel() == label


def test_one_picture_has_every_curve_and_the_times():
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


def test_a_confusion_matrix_is_in_per_cent_of_the_true_class():
    axes = axes_of(figures.confusion_matrix(np.array([[9, 1], [0, 40]]), ["cat", "dog"]))
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[90, 10], [0, 100]])
    assert cells(axes) == {(0, 0): "90.0%\n9", (0, 1): "10.0%\n1", (1, 1): "100.0%\n40"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")


def test_a_class_without_images_has_an_empty_row():
    axes = axes_of(figures.confusion_matrix(np.array([[2, 0], [0, 0]]), ["a", "b"]))
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[100, 0], [0, 0]])


@pytest.mark.parametrize(
    ("classes", "numbers", "names"), [(10, 10, True), (20, 20, True), (30, 0, True), (100, 0, False)]
)
def test_many_classes_lose_first_their_numbers_then_their_names(classes, numbers, names):
    labels = [f"name {each}" for each in range(classes)]
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
def test_other_kernels_are_means_on_a_scale_with_zero_in_its_middle(channels):
    weights = np.zeros((2, 2, channels, 3), np.float32)
    weights[1, 0, :, 2] = -np.arange(1, channels + 1)
    figure = figures.kernels(weights)
    np.testing.assert_allclose(panels(figure)[2], [[0, 0], [-(channels + 1) / 2, 0]])
    norm = figure.axes[0].get_images()[0].norm
    assert (norm.vmin, norm.vmax) == (-(channels + 1) / 2, (channels + 1) / 2)


def test_at_most_64_kernels_are_shown():
    assert len(panels(figures.kernels(np.ones((3, 3, 3, 100), np.float32)))) == 64


def test_augmented_images_stand_beside_their_originals():
    originals = np.full((3, 2, 2, 3), [[[[0]]], [[[51]]], [[[255]]]], np.uint8)
    augmented = np.arange(9).reshape(3, 3, 1, 1, 1) / 10 * np.ones((3, 3, 2, 2, 3))
    shown = [panel[0, 0, 0] for panel in panels(figures.augmentation(originals, augmented))]
    np.testing.assert_allclose(sorted(shown), sorted([0, 0.2, 1, *np.arange(9) / 10]))
    grid = [
        axes for axes in figures.augmentation(originals, augmented).axes if axes.get_subplotspec().rowspan.start == 1
    ]
    row = [axes.get_images()[0].get_array()[0, 0, 0] for axes in grid]
    np.testing.assert_allclose(row, [0.2, 0.3, 0.4, 0.5])


def test_mistakes_say_what_was_taken_for_what_and_how_surely():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    figure = figures.mistakes(images, ["$x^{$", "cat"], ["a name that is far too long", "<b>"], [0.999, 0.5])
    figure.draw_without_rendering()  # would fail if this were parsed as a formula
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["$x^{$, predicted as\na name that is … (99.9%)", "cat, predicted as\n<b> (50.0%)"]
    assert panels(figure)[0].shape == (4, 4, 3)


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


def test_figures_fit_a_paper_and_leave_the_global_style_alone():
    before = dict(matplotlib.rcParams)
    for figure in every_figure():
        assert figure.get_size_inches()[0] <= 7
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 8
        assert figure.get_suptitle() == ""
    assert dict(matplotlib.rcParams) == before


# What they are drawn from


def verdict(labels, probabilities):
    labels = np.asarray(labels, np.int32)
    return TestPredictions(
        np.zeros((len(labels), 2, 2, 1), np.uint8), labels, np.log(np.asarray(probabilities, np.float32))
    )


def test_a_verdict_counts_by_class():
    found = verdict([0, 0, 0, 1], [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.25, 0.7, 0.05], [0.9, 0.05, 0.05]])
    assert found.accuracy == 0.5
    assert found.loss == pytest.approx(-np.log([0.8, 0.6, 0.25, 0.05]).mean(), rel=1e-5)
    np.testing.assert_array_equal(found.confusion, [[2, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.per_class()[0], (2 / 3, 2 / 3, 2 / 3, 3))
    assert found.per_class()[1] == (0, 0, 0, 1)
    assert np.isnan(found.per_class()[2][:3]).all()
    np.testing.assert_array_equal(found.mistakes(5), [3, 2])  # the surest first
    np.testing.assert_array_equal(found.mistakes(1), [3])


def test_the_report_finds_what_evaluation_finds(monkeypatch):
    monkeypatch.setattr(gather, "_BATCH", 200)  # of 359, so that the last batch is not full
    classifier = classifier_of("lenet", "0123456789")
    found = predict_test_split(classifier, DIGITS)
    evaluator = Evaluator(classifier.mean, classifier.std, 10, batch_size=359)
    scores = evaluator(classifier.model, classifier.state, found.images, found.labels)
    np.testing.assert_array_equal(found.confusion, scores.confusion)
    assert found.loss == pytest.approx(scores.loss, rel=1e-5)


def test_the_first_layer_of_a_network():
    lenet, mlp = classifier_of("lenet", "0123456789"), classifier_of("mlp", MARKUP, channels=3, side=16)
    np.testing.assert_array_equal(first_weights(lenet), lenet.model.conv1.weight)
    weights = first_weights(mlp)
    assert weights.shape == (16, 16, 3, 128)
    assert weights[2, 5, 1, 7] == mlp.model.hidden[0].weight[7, (2 * 16 + 5) * 3 + 1]
    elsewhere = ImageClassifier(mlp.model, mlp.state, mlp.mean, mlp.std, "mlp", (30, 30), ("a", "b"))
    assert first_weights(elsewhere) is None


def test_augmented_examples_follow_the_recipe():
    recipe = Recipe(model="lenet", data="digits", augment=("brightness(0.25)",), seed=3)
    originals, augmented = augmented_examples(recipe)
    assert (originals.shape, augmented.shape) == ((3, 28, 28, 1), (3, 3, 28, 28, 1))
    expected = np.clip(originals[:, None] / 255 + 0.25, 0, 1)
    np.testing.assert_allclose(augmented, np.broadcast_to(expected, augmented.shape), atol=1e-6)
    assert augmented_examples(Recipe(data="digits")) is None


# The page


def test_a_finished_run_has_all_pictures_as_files_and_in_its_page(reported):
    page, plots = Page(reported), reported / "plots"
    assert set(page.pictures) == ALL
    for name, data in page.pictures.items():
        is_line_art = name in CURVES | {"confusion"}
        assert (plots / f"{name}.{'svg' if is_line_art else 'png'}").read_bytes() == data
        assert (plots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "does not augment" in page.text
    assert not (plots / "augment.png").exists()


def test_the_page_needs_nothing_from_elsewhere(reported):
    page = Page(reported)
    assert [source for source in page.fetched if not source.startswith("data:image/")] == []
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_page_tells_recipe_environment_and_classes(reported):
    page = Page(reported)
    assert (reported / "recipe.yaml").read_text() in page.text
    assert ["devices", "<cpu>"] in page.rows
    assert ["commit", "-"] in page.rows
    head = page.rows.index(["class", "precision (%)", "recall (%)", "F1 (%)", "test images"])
    classes = page.rows[head + 1 : head + 11]
    assert [row[0] for row in classes] == list("0123456789")
    assert sum(int(row[4]) for row in classes) == 359
    found = predict_test_split(classifier_of("lenet", "0123456789"), DIGITS)
    assert [row[2] for row in classes] == [f"{100 * recall:.1f}" for _, recall, _, _ in found.per_class()]
    assert ["Test accuracy", f"{found.accuracy:.2%} of 359 images"] in page.rows


def test_an_unfinished_run_has_its_curves_without_its_data(tmp_path):
    recipe = Recipe(model="mlp", data="no/such-data", epochs=9)
    folder = make_run(tmp_path / "run", recipe, [epoch(1)])
    (folder / "plots").mkdir()
    (folder / "plots" / "confusion.png").write_bytes(b"of an earlier report")
    (folder / "plots" / "notes.txt").write_text("mine")
    write_report(folder)
    page = Page(folder)
    assert set(page.pictures) == CURVES
    assert "This run is not finished" in page.text
    assert ["Training", "1 of 9 epochs in 1.5 s"] in page.rows
    kept = {path.name for path in (folder / "plots").iterdir()}
    pictures = {f"{name}.{kind}" for name in CURVES | {"training"} for kind in ("png", "svg")}
    assert kept == pictures | {"report.html", "notes.txt"}


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(), [])
    (folder / "environment.json").unlink()
    write_report(folder)
    assert "No epoch is logged yet" in Page(folder).text


def test_two_classes_with_names_like_markup(tmp_path, monkeypatch):
    monkeypatch.setenv("EQXCNN_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    for split, name, number in [(s, n, i) for s in ("train", "test") for n in MARKUP for i in range(3)]:
        path = tmp_path / "data" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    recipe = Recipe(
        model="mlp", data=str(tmp_path / "data"), epochs=1, image_size=(16, 16), augment=("flip_horizontal",)
    )
    folder = make_run(tmp_path / "run", recipe, [epoch(1)], classifier_of("mlp", MARKUP, channels=3, side=16))
    write_report(folder)
    page = Page(folder)
    assert set(page.pictures) == ALL | {"augment"}
    assert "b" not in page.tags
    assert [row[0] for row in page.rows if row[-1] == "3"] == list(MARKUP)


def test_data_that_have_moved_give_the_same_files(tmp_path, reported):
    recipe = Recipe(model="lenet", data="no/such-data", epochs=1, image_size=(28, 28))
    folder = make_run(tmp_path / "run", recipe, [epoch(1)], classifier_of("lenet", "0123456789"))
    write_report(folder, data="digits")
    page, same = Page(folder), Page(reported)
    assert "data: no/such-data\n" in page.text
    for name in ALL - CURVES:
        assert page.pictures[name] == same.pictures[name]


def test_no_mistake_is_a_sentence(reported, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", DIGITS, [epoch(1)], classifier_of("lenet", "0123456789"))
    right = verdict(range(10), np.eye(10) * 0.9 + 0.01)
    monkeypatch.setattr(write, "predict_test_split", lambda *_: right)
    write_report(folder)
    page = Page(folder)
    assert set(page.pictures) == ALL - {"wrong"}
    assert "all 10 test images are classified rightly" in page.text


# Calls and mistakes


def test_the_command_prints_the_path_of_the_page(tmp_path, capsys):
    folder = make_run(tmp_path / "run", Recipe(), [epoch(1)])
    main([str(folder)])
    assert capsys.readouterr().out == f"{folder / 'plots' / 'report.html'}\n"


def test_show_augment_draws_any_recipe_and_source(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: lenet\ndata: no/such-data\naugment: [nothing]\n")
    main(
        ["--show-augment", "--recipe", "mine.yaml", "--data", "digits", "--augment", "random_crop(2)", "flip_vertical"]
    )
    assert capsys.readouterr().out == "augment.png\n"
    assert Image.open("augment.png").size[0] == 680  # 3.4 inches, 200 dots each


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give a run's folder, or --show-augment"),
        (["nowhere"], "`nowhere` is not a run folder"),
        (["--show-augment"], "no augmentation to show"),
        (["--show-augment", "--augment", "flip"], "no `flip`"),
        (["--show-augment", "--recipe", "nosuch"], "no recipe named `nosuch`"),
        (["--show-augment", "--augment", "flip_vertical", "--out", "x.doc"], r"`out` \(='x.doc'\) must end in"),
        (["run", "--show-augment"], r"`run` \(='run'\) cannot be given with --show-augment"),
        (["run", "--out", "x.png"], "need --show-augment"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("recipe.yaml", "model: nosuch", "nosuch"),
        ("metrics.jsonl", "no json\n", "metrics.jsonl` is not as training writes it"),
        ("metrics.jsonl", "5\n", "metrics.jsonl` is not as training writes it"),
        ("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl` is not as training writes it"),
        ("metrics.jsonl", json.dumps(epoch(1, train_loss="low")) + "\n", "metrics.jsonl` is not as training writes it"),
        ("environment.json", "5", "environment.json` cannot be read as JSON"),
        ("model/config.json", "{}", "config.json"),
        ("plots", "a file", "plots.* cannot be written"),
    ],
)
def test_a_damaged_run_is_named(tmp_path, name, text, sentence):
    folder = make_run(tmp_path / "run", Recipe(), [epoch(1)])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


def test_a_line_cut_short_is_left_out(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(), [epoch(1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tra')
    assert read_run(folder).series("train_loss") == [2]


def test_data_of_other_classes_are_refused(tmp_path):
    folder = make_run(tmp_path / "run", DIGITS, [epoch(1)], classifier_of("lenet", ("cat", "dog")))
    with pytest.raises(InputError, match=r"has the classes 0, 1, .* learnt cat, dog"):
        write_report(folder)


def test_exit_codes(tmp_path):
    command = [sys.executable, "-m", "eqxcnn.report", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: `nowhere` is not a run folder")
    assert done.stdout == ""
    with pytest.raises(SystemExit, match="2"):
        main(["--show-augmnet"])
