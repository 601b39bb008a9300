"""docs/zoo.md agrees with the registry."""

import dataclasses
import re
from pathlib import Path

import pytest

from eqxcnn import registry, zoo
from eqxcnn.zoo.__main__ import main
from eqxcnn.zoo.page import format_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
#: Models of several families that are cheap to trace.
TRACED = ("lenet", "mlp", "scratch", "cifar_cnn", "alexnet", "nin", "resnet18_cifar", "squeezenet1_1")


def committed_multiply_adds():
    """The multiply-adds of each model on the committed page, in millions."""
    rows = re.findall(r"^\| `(\w+)` \| [\dx]+ \| [\d,]+ \| ([\d,]+\.\d\d) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name: float(millions.replace(",", "")) for name, millions in rows}


def test_the_committed_page_agrees_with_the_registry():
    millions = committed_multiply_adds()
    assert sorted(millions) == zoo.list_models(), "run python -m eqxcnn.zoo page > docs/zoo.md"
    # Uses the multiply-adds of the page itself, because tracing every model takes minutes.
    again = format_page({name: round(value * 1e6) for name, value in millions.items()})
    assert again == PAGE.read_text("utf-8"), "run python -m eqxcnn.zoo page > docs/zoo.md"


@pytest.mark.parametrize("name", TRACED)
def test_the_committed_multiply_adds_are_those_of_the_card(name):
    assert committed_multiply_adds()[name] == round(zoo.card(name).multiply_adds / 1e6, 2)


@pytest.fixture
def two_models(monkeypatch):
    """A registry of two models of the family `lenet`."""
    row = registry.variant("lenet")
    source = {"source": "https://www.arxiv.org/abs/1234.56789v2", "task": "imagenet"}
    other = dataclasses.replace(row, recipe=None, torch_twin="timm/other", **source)
    monkeypatch.setattr("eqxcnn.zoo.page.BUNDLED", {})
    monkeypatch.setattr("eqxcnn.zoo.page.families", lambda: {"lenet": ("lenet", row), "other": ("lenet", other)})
    monkeypatch.setattr("eqxcnn.zoo.__main__.families", lambda: {"lenet": ("lenet", row)})
    return row


@pytest.mark.usefixtures("two_models")
def test_one_table_per_family_under_each_task():
    text = format_page({"lenet": 416_520, "other": 1_234_567_890})
    assert "\n2 models in 1 families" in text
    assert text.index("## MNIST\n\n### lenet\n\nLeNet-5 in the form") < text.index(
        "## ImageNet\n\n### lenet\n\nLeNet-5"
    )
    cells = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    paper = "[yann.lecun.com](http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf)"
    other = "[arXiv 1234.56789](https://www.arxiv.org/abs/1234.56789v2)"
    assert cells == [
        ["`lenet`", "28x28x1", "61,706", "0.42", "12", "-", "`lenet`", paper],
        ["`other`", "28x28x1", "61,706", "1,234.57", "12", "`timm/other`", "-", other],
    ]


def test_the_command_prints_the_page(two_models, capsys, monkeypatch):
    monkeypatch.setattr("eqxcnn.zoo.page.BUNDLED", {})
    monkeypatch.setattr("eqxcnn.zoo.page.families", lambda: {"lenet": ("lenet", two_models)})
    main(["page"])
    assert capsys.readouterr().out == format_page({"lenet": 416_520})
