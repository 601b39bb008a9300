"""The page in a real browser: drawing, pictures, the keyboard, the camera, and no request to another host."""

from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.serve.browser import Browser, find_browser
from tests.serve.conftest import running
from tests.serve.test_service import draw_digit
from tests.serve.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium and chromedriver (Debian: chromium-driver)"),
]

#: Corners of a 7, as fractions of the canvas.
SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]


@pytest.fixture(scope="module")
def served(lenet):
    with running(lenet, max_batch=1) as pair:
        yield pair


@pytest.fixture
def page(served, window):
    """Opens the page; after the test, checks that the page shows no problem and sent requests only to the service."""
    address = str(served[1].base_url)
    window.requests()
    window.open(address)
    wait_until(lambda: "10 classes, 28" in window.text("#facts"))
    yield window
    asked = window.requests()
    assert any("/predict" in each for each in asked)
    assert {urlsplit(each).netloc for each in asked if not each.startswith(("data:", "blob:"))} == {
        urlsplit(address).netloc
    }
    assert window.text("#problem") == ""


def is_empty(page):
    return page.run("return document.querySelector('#classes').hidden")


def probabilities(page):
    return page.run(
        "return [...document.querySelectorAll('#classes li')].map(row => parseFloat(row.lastChild.innerText))"
    )


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_drawn_7_is_read(page, kind):
    page.drag("#canvas", SEVEN, kind)
    wait_until(lambda: page.text("#best") == "7")
    shown = probabilities(page)
    assert len(shown) == 10
    assert shown.index(max(shown)) == 7
    wait_until(lambda: page.run("return document.querySelector('#heat').naturalWidth") == 28)
    assert page.run("return document.querySelector('#seen').naturalWidth") == 28
    assert "“7”" in page.text("#heat-text")
    page.run("document.querySelector('#show-heat').click()")
    assert page.run("return document.querySelector('#heat').hidden")
    page.run("document.querySelector('#clear').click()")
    assert is_empty(page)
    assert page.run("return document.querySelector('#seen-part').hidden")


def test_a_small_drawing_in_a_corner_is_centered(page):
    page.drag("#canvas", [(0.05 + x * 0.3, 0.05 + y * 0.3) for x, y in SEVEN])
    wait_until(lambda: page.text("#best") == "7")


def test_the_keyboard_draws_a_1(page):
    page.run("document.querySelector('#canvas').focus()")
    page.press(*["ArrowUp"] * 8, " ", *["ArrowDown"] * 16, " ", "ArrowLeft")
    wait_until(lambda: page.text("#best") == "1")
    page.press("Delete")
    assert is_empty(page)


def test_a_picture_is_read_and_can_be_inverted(page, tmp_path):
    draw_digit(7).resize((90, 90)).convert("RGB").save(tmp_path / "seven.jpg")
    page.choose_file("#file", tmp_path / "seven.jpg")
    wait_until(lambda: page.text("#best") == "7")
    draw_digit(1).resize((90, 90)).point(lambda value: 255 - value).save(tmp_path / "dark_on_light.png")
    page.choose_file("#file", tmp_path / "dark_on_light.png")
    page.run("document.querySelector('#invert').click()")
    wait_until(lambda: page.text("#best") == "1")


def test_what_is_not_a_picture_is_answered_with_a_sentence(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page.choose_file("#file", tmp_path / "notes.png")
    wait_until(lambda: "the image cannot be read as an image" in page.text("#problem"))
    page.run("document.querySelector('#clear').click()")


def test_the_camera_is_classified_until_it_is_stopped(page):
    page.run("document.querySelector('#camera').click()")
    wait_until(lambda: not is_empty(page))
    assert page.run("return document.querySelector('#camera').ariaPressed") == "true"
    page.run("document.querySelector('#camera').click()")
    assert page.run("return document.querySelector('#camera').ariaPressed") == "false"
    wait_until(lambda: is_empty(page))


def test_two_quick_clicks_open_the_camera_once(page):
    page.run("""
        window.streams = []; const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
        media.getUserMedia = async (options) => { streams.push(await real(options)); return streams.at(-1); };
        for (const _ of [1, 2]) document.querySelector('#camera').click();""")
    wait_until(lambda: not is_empty(page))
    assert page.run("return streams.length") == 1
    page.run("document.querySelector('#camera').click()")
    assert page.run("return streams[0].getTracks().map(track => track.readyState)") == ["ended"]


def test_a_camera_that_shows_nothing_is_reported_and_stopped(page):
    page.drag("#canvas", SEVEN)
    wait_until(lambda: page.text("#best") == "7")
    page.run("HTMLMediaElement.prototype.play = () => Promise.reject(new Error('no frames'));")
    page.run("document.querySelector('#camera').click()")
    wait_until(lambda: page.text("#problem") == "The camera cannot be used: no frames.")
    assert page.run("return document.querySelector('#camera').ariaPressed") == "false"
    page.run("document.querySelector('#clear').click()")


def test_a_late_answer_is_not_shown_for_a_new_drawing(page):
    page.run("""
        window.held = []; const real = window.fetch;
        window.fetch = async (...all) => {
            const answer = await real(...all);
            await new Promise((release) => held.push(release));
            return answer;
        };""")
    page.drag("#canvas", SEVEN)
    wait_until(lambda: page.run("return held.length") == 1)
    page.run("document.querySelector('#clear').click()")
    page.drag("#canvas", [(0.5, 0.2), (0.5, 0.8)])
    page.run("held[0]()")
    wait_until(lambda: page.run("return held.length") == 2)
    assert is_empty(page)
    page.run("held[1]()")
    wait_until(lambda: page.text("#best") == "1")


def test_at_most_one_request_is_in_flight(page):
    page.run("""
        window.most = window.count = 0; let now = 0; const real = window.fetch;
        window.fetch = async (...all) => {
            window.most = Math.max(window.most, ++now);
            window.count++;
            try { return await real(...all); } finally { now--; }
        };""")
    page.drag("#canvas", SEVEN * 3)
    wait_until(lambda: page.run("return window.count") > 2)
    assert page.run("return window.most") == 1


def test_a_phone_needs_no_horizontal_scrolling(served, tmp_path):
    window = Browser(tmp_path / "profile", width=320, height=640, is_dark=True)
    try:
        window.open(str(served[1].base_url))
        wait_until(lambda: "10 classes" in window.text("#facts"))
        window.drag("#canvas", SEVEN, "touch")
        wait_until(lambda: window.text("#best") == "7")
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        window.screenshot(tmp_path / "phone.png")
    finally:
        window.close()
    with Image.open(tmp_path / "phone.png") as shown:
        assert max(shown.convert("RGB").getpixel((2, 2))) < 64  # dark colors
