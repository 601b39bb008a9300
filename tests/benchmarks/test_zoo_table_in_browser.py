"""The table of all models in a real browser: sorting, filters, the keyboard, a phone, and no network request."""

import pytest
from PIL import Image

from benchmarks.zoo_pages.rows import TASKS
from eqxcnn import zoo
from eqxcnn.catalog import families
from eqxcnn.weights.bundled import BUNDLED
from tests.benchmarks.test_zoo_table import HEADS, make_page
from tests.serve.browser import Browser, find_browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium and chromedriver (Debian: chromium-driver)"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "zoo.html"
    path.write_text(make_page(), encoding="utf-8")
    return path


@pytest.fixture
def opened(file, window):
    """Opens the page anew. After the test, checks that the browser has requested no other file."""
    window.requests()
    window.open(file.as_uri())
    yield window
    assert [each for each in window.requests() if not each.startswith("data:")] == [file.as_uri()]


def shown(window, column="Model"):
    """The texts of a column in the visible rows."""
    return window.run(
        f"return rows.filter(row => row.offsetParent).map(row => row.cells[{HEADS.index(column)}].textContent)"
    )


def click_head(window, head):
    """Clicks a column's header; returns the header and the sort direction of each sorted column."""
    window.run(f"heads[{HEADS.index(head)}].querySelector('button').click()")
    return window.run("return heads.filter(each => each.ariaSort).map(each => [each.textContent, each.ariaSort])")


def fill(window, selector, value):
    window.run(
        f"const field = document.querySelector('{selector}'); field.value = '{value}';"
        "field.dispatchEvent(new Event('input', { bubbles: true }))"
    )


def test_a_head_sorts_numbers_and_then_reverses_them(opened):
    assert click_head(opened, "Parameters") == [["Parameters", "ascending"]]
    ascending = [int(each.replace(",", "")) for each in shown(opened, "Parameters")]
    assert ascending == sorted(ascending)
    assert len(ascending) == len(zoo.list_models())
    assert click_head(opened, "Parameters") == [["Parameters", "descending"]]
    assert [int(each.replace(",", "")) for each in shown(opened, "Parameters")] == ascending[::-1]


def test_the_best_accuracy_comes_first_and_empty_cells_last(opened):
    best = [f"{100 * accuracy:.2f}" for accuracy in sorted((row.accuracy for row in BUNDLED.values()), reverse=True)]
    assert click_head(opened, "Accuracy (%)") == [["Accuracy (%)", "descending"]]
    assert shown(opened, "Accuracy (%)")[: len(best) + 1] == [*best, ""]
    click_head(opened, "Accuracy (%)")
    assert shown(opened, "Accuracy (%)")[: len(best) + 1] == [*best[::-1], ""]
    assert click_head(opened, "Training (images/s)") == [["Training (images/s)", "descending"]]
    assert shown(opened)[:3] == ["mlp", "scratch", "lenet"]


def test_text_is_sorted_with_its_numbers(opened):
    click_head(opened, "Model")
    fill(opened, "#text", "resnet")
    names = shown(opened)
    assert names.index("resnet20") < names.index("resnet32") < names.index("resnet101") < names.index("resnet152")


def test_filters_are_combined_and_reset(opened):
    fill(opened, "#data", TASKS["cifar"])
    of_cifar = [name for name, (_, variant) in families().items() if variant.task == "cifar"]
    assert sorted(shown(opened)) == of_cifar
    opened.run("document.querySelector('#trained').click()")
    trained = [name for name in of_cifar if name in BUNDLED]
    assert sorted(shown(opened)) == trained
    assert opened.text("#shown") == f"{len(trained)} of {len(families())} models"
    fill(opened, "#family", "simple_cnn")
    assert shown(opened) == ["cifar_cnn"]
    opened.run("document.querySelector('button[type=reset]').click()")
    # The page applies the filters after the browser has reset the fields.
    opened.run("return new Promise(resolve => setTimeout(resolve, 50))")
    assert sorted(shown(opened)) == zoo.list_models()
    fill(opened, "#text", "RESNET mnist")
    assert shown(opened) == []
    assert opened.text("#shown").startswith("0 of ")


def test_the_keyboard_sorts(opened):
    opened.run("heads[0].querySelector('button').focus()")
    opened.press(" ")
    assert opened.run("return heads[0].ariaSort") == "ascending"
    assert shown(opened)[0] == "airbench94"
    assert opened.run("return document.activeElement.textContent") == "Model"


def test_a_phone_needs_no_horizontal_scrolling_of_the_page(file, tmp_path):
    window = Browser(tmp_path / "profile", width=320, height=640, is_dark=True)
    try:
        window.open(file.as_uri())
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        assert window.run(
            "const frame = document.querySelector('.frame'); return frame.scrollWidth > frame.clientWidth"
        )
        window.screenshot(tmp_path / "phone.png")
    finally:
        window.close()
    with Image.open(tmp_path / "phone.png") as picture:
        assert max(picture.convert("RGB").getpixel((2, 2))) < 64  # dark colors


def test_without_scripts_the_table_is_complete(file, tmp_path):
    window = Browser(tmp_path / "profile")
    try:
        window.cdp("Emulation.setScriptExecutionDisabled", value=True)
        window.open(file.as_uri())
        found = window.run(
            "const count = (selector) => document.querySelectorAll(selector).length;"
            "return [document.querySelector('form').checkVisibility(), count('tbody tr'), count('th button')]"
        )
    finally:
        window.close()
    assert found == [False, len(families()), 0]
