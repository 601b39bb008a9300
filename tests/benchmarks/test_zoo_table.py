"""The table of all models has a row of facts for each model, and its page loads no other file."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from benchmarks.zoo_pages.__main__ import PAGE, read_multiply_adds
from benchmarks.zoo_pages.rows import TASKS, Speeds, make_rows
from benchmarks.zoo_pages.table import COLUMNS, format_table_page
from eqxcnn import zoo
from eqxcnn.catalog import families
from eqxcnn.weights.bundled import BUNDLED

HEADS = [column.head for column in COLUMNS]
SPEEDS = Speeds({"mlp, training": 9e4, "lenet, training": 7e3, "scratch, training": 15e3}, ("python -m x", "**AMD**"))


class Table(HTMLParser):
    """The cells of the page's rows, and all attributes that may load another file."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.addresses = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        loading = {"src", "srcset", "href", "data", "action", "poster"}
        self.addresses += [(tag, name, value) for name, value in attributes if name in loading]

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def make_page():
    """Returns the page, made from the multiply-adds in the committed docs/zoo.md and from three speeds."""
    return format_table_page(make_rows(read_multiply_adds(PAGE), SPEEDS), SPEEDS)


@pytest.fixture(scope="module")
def page():
    return make_page()


def test_each_model_has_a_row_with_its_facts(page):
    head, *rows = Table(page.partition("<script>")[0]).rows
    assert head == HEADS
    found = {row[0]: dict(zip(HEADS, row, strict=True)) for row in rows}
    assert (len(rows), sorted(found)) == (len(found), zoo.list_models())
    for name, (family, variant) in families().items():
        assert found[name]["Family"] == family
        assert found[name]["Published for"] == TASKS[variant.task]
        assert found[name]["Input"] == "x".join(map(str, variant.input))
        assert found[name]["Parameters"] == f"{variant.params:,}"
    for name, row in BUNDLED.items():
        facts = found[name]
        assert (facts["Weights"], facts["Test data"], facts["Recipe"]) == ("package", row.data, row.recipe)
        assert facts["Accuracy (%)"] == f"{100 * row.accuracy:.2f}"
        assert facts["Accuracy, one view (%)"] == f"{100 * row.one_view_accuracy:.2f}"
    assert found["mlp"]["Training (images/s)"] == "90,000"
    assert (found["resnet18"]["Weights"], found["resnet18"]["Accuracy (%)"]) == ("Hub", "")
    assert found["airbench94_narrow"]["Recipe"] == "cifar_fast"
    assert "<code>python -m x</code>, on AMD." in page


def test_the_page_loads_nothing(page):
    addresses = Table(page).addresses
    assert {(tag, name) for tag, name, _ in addresses} == {("a", "href"), ("link", "href")}
    assert [value for tag, _, value in addresses if tag == "link"] == ["data:,"]
    # The browser would refuse requests that the policy does not allow.
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page)


def test_text_from_other_packages_is_escaped(monkeypatch):
    variant = dataclasses.replace(families()["lenet"][1], task="<b>", source='https://a/"><script>')
    monkeypatch.setattr("benchmarks.zoo_pages.rows.families", lambda: {"lenet": ("p/<i>", variant)})
    written = format_table_page(make_rows({"lenet": 1}, Speeds()), Speeds())
    assert "<b>" not in written
    assert "<i>" not in written
    assert 'href="https://a/&quot;&gt;&lt;script&gt;"' in written
    assert "They have not been measured yet." in written
