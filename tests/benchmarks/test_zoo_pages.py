"""The pages of the zoo agree with the registry, the records of the weights and the measured speeds."""

import dataclasses
import json
import re

import matplotlib as mpl
import pytest

from benchmarks.zoo_pages import __main__ as pages
from benchmarks.zoo_pages.__main__ import PAGE, PLOT, TABLE, main, read_multiply_adds, render_files
from benchmarks.zoo_pages.page import format_page
from benchmarks.zoo_pages.plot import Point, draw_accuracy, find_points, render_svg
from benchmarks.zoo_pages.rows import Speeds, make_rows, read_speeds
from eqxcnn import registry, zoo
from eqxcnn.errors import InputError
from eqxcnn.weights.bundled import BUNDLED

#: Models of several families that are cheap to trace.
TRACED = ("lenet", "mlp", "scratch", "cifar_cnn", "alexnet", "nin", "resnet18_cifar", "squeezenet1_1")
UPDATE = "run python -m benchmarks.zoo_pages"
ENVIRONMENT = {"python": "3.11.7", "processor": "AMD EPYC", "cores": 2, "devices": ["cpu"]}
#: Images per second of LeNet; no other network is measured.
SPEEDS = Speeds(
    {"lenet, training": 7000.0, "lenet, prediction, 64 images": 60000.0, "lenet, prediction, 1 image": 99.9},
    ("python -m benchmarks.zoo_speed --rounds 7", "**AMD EPYC**"),
)


@pytest.fixture(scope="module")
def committed():
    """The multiply-adds of each model, read from the committed page, because tracing every model would take minutes."""
    return read_multiply_adds(PAGE)


@pytest.mark.parametrize("path", [PAGE, TABLE], ids=lambda path: path.name)
def test_the_committed_pages_are_up_to_date(path, committed):
    assert path.read_text("utf-8") == render_files(committed)[path], UPDATE


def test_the_committed_plot_is_up_to_date(committed):
    svg = PLOT.read_text("utf-8")
    assert all(f"<!-- {name} -->" in svg for name in BUNDLED), UPDATE
    if f"Matplotlib v{mpl.__version__}," not in svg:
        pytest.skip("another version of Matplotlib draws other paths")
    assert svg == render_files(committed)[PLOT], UPDATE


@pytest.mark.parametrize("name", TRACED)
def test_the_committed_multiply_adds_are_those_of_the_card(name, committed):
    assert committed[name] == round(zoo.card(name).multiply_adds, -4)


def test_a_page_without_all_models_is_refused(tmp_path):
    (tmp_path / "zoo.md").write_text(re.sub(r"^\| `lenet` .*\n", "", PAGE.read_text("utf-8"), flags=re.MULTILINE))
    with pytest.raises(InputError, match=r"do not have the same models \(lenet\): omit `--keep-multiply-adds`"):
        read_multiply_adds(tmp_path / "zoo.md")


@pytest.fixture
def two_models(monkeypatch):
    """A registry of two models of the family `lenet`."""
    row = registry.variant("lenet")
    source = {"source": "https://www.arxiv.org/abs/1234.56789v2", "task": "imagenet"}
    other = dataclasses.replace(row, recipe=None, torch_twin="timm/other", **source)
    known = {"lenet": ("lenet", row), "other": ("lenet", other)}
    monkeypatch.setattr("benchmarks.zoo_pages.rows.families", lambda: known)
    return {"lenet": 416_520, "other": 1_234_567_890}


def cells_of(text):
    return [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]


def test_one_table_per_family_under_each_task(two_models):
    text = format_page(make_rows(two_models, Speeds()), Speeds())
    assert "\n2 models in 1 families" in text
    assert text.index("## MNIST\n\n### lenet\n\nLeNet-5 in the form") < text.index(
        "## ImageNet\n\n### lenet\n\nLeNet-5"
    )
    paper = "[yann.lecun.com](http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf)"
    other = "[arXiv 1234.56789](https://www.arxiv.org/abs/1234.56789v2)"
    assert cells_of(text)[-2:] == [
        ["`lenet`", "28x28x1", "61,706", "0.42", "12", "-", "`lenet`", paper],
        ["`other`", "28x28x1", "61,706", "1,234.57", "12", "`timm/other`", "-", other],
    ]


def test_trained_weights_have_scores_and_speeds(two_models, monkeypatch):
    row = dataclasses.replace(BUNDLED["lenet"], accuracy=0.9901, one_view_accuracy=0.985)
    row = dataclasses.replace(row, training={**row.training, "train_seconds": 321.0, "epochs": 30})
    monkeypatch.setitem(zoo.PUBLISHED, "lenet", row)
    text = format_page(make_rows(two_models, SPEEDS), SPEEDS)
    scores, speeds = cells_of(text)[:2]
    assert scores == ["`lenet`", "`mnist`", "99.01", "98.50", "`lenet_best`", "0", "61,706", "`float32`"]
    assert speeds == ["`lenet`", "10.7", "7,000", "60,000", "99.9"]
    assert "**AMD EPYC**.\n\n```bash\npython -m benchmarks.zoo_speed --rounds 7\n```\n" in text


def test_speeds_that_are_not_measured_are_left_out(two_models, tmp_path):
    speeds = read_speeds(tmp_path / "missing.json")
    text = format_page(make_rows(two_models, speeds), speeds)
    assert cells_of(text)[1][2:] == ["-", "-", "-"]
    assert "They have not been measured yet.\n\n```bash\npython -m benchmarks.zoo_speed\n```\n" in text


def test_speeds_are_read_from_the_benchmarks_results(tmp_path):
    record = {"command": "python -m x", "environment": ENVIRONMENT, "images_per_second": {"lenet, training": 7}}
    (tmp_path / "zoo_speed.json").write_text(json.dumps(record))
    speeds = read_speeds(tmp_path / "zoo_speed.json")
    assert speeds.of("lenet") == (7, None, None)
    assert speeds.of("mlp") == (None, None, None)
    assert speeds.source[0] == "python -m x"
    assert speeds.source[1].startswith("**AMD EPYC, cores: 2, devices: cpu**; python 3.11.7")


def test_the_command_writes_the_files_with_the_multiply_adds_of_the_page(monkeypatch, tmp_path, capsys):
    texts = []
    monkeypatch.setattr(pages, "PAGE", tmp_path / "zoo.md")
    monkeypatch.setattr(pages, "render_files", lambda costs: texts.append(costs) or {tmp_path / "new" / "a": "text"})
    (tmp_path / "zoo.md").write_text(PAGE.read_text("utf-8"))
    main(["--keep-multiply-adds"])
    assert (tmp_path / "new" / "a").read_text() == "text"
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'a'}\n"
    assert texts[0]["lenet"] == 420_000


def test_the_command_counts_the_multiply_adds(monkeypatch):
    counts = []
    monkeypatch.setattr(pages, "render_files", lambda costs: counts.append(costs) or {})
    monkeypatch.setattr(zoo, "list_models", lambda: ["lenet"])
    main([])
    assert counts == [{"lenet": 416_520}]


def test_the_plot_has_a_color_for_each_data_set_and_a_name_beside_each_point():
    points = [
        Point("small", "mnist", 0.99, 1000, 5e4), Point("large", "mnist", 0.995, 10_000, None),
        Point("other", "cifar10", 0.9, 5000, 2e3),
    ]  # fmt: skip
    left, right = draw_accuracy(points).axes
    drawn = {line.get_label(): line for line in left.lines}
    assert {name: line.get_xydata().tolist() for name, line in drawn.items()} == {
        "cifar10": [[5000, 90]],
        "mnist": [[1000, 99], [10_000, 99.5]],
    }
    assert drawn["mnist"].get_color() != drawn["cifar10"].get_color()
    assert (left.get_xscale(), right.get_xscale()) == ("log", "log")
    assert {text.get_text() for text in left.texts} == {"small", "large", "other"}
    assert {text.get_text() for text in right.texts} == {"small", "other"}
    heights = left.transData.transform([(1, 80), (1, 90), (1, 99), (1, 99.5)])[:, 1]
    assert heights[1] - heights[0] == pytest.approx(heights[3] - heights[2])


def test_names_lie_inside_the_panels_of_the_committed_plot(committed):
    figure = draw_accuracy(find_points(make_rows(committed, SPEEDS)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        panel = axes.get_window_extent()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 for box in boxes)
        assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])


def test_a_plot_without_speeds_says_so():
    points = [Point("small", "mnist", 0.99, 1000, None)]
    _, right = draw_accuracy(points).axes
    assert [text.get_text() for text in right.texts] == ["not measured yet"]
    assert render_svg(draw_accuracy(points)) == render_svg(draw_accuracy(points))
