"""The web page in docs/export.md, in a real browser with onnxruntime-web, compared with the classifier."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jax
import numpy as np
import pytest
from PIL import Image

import eqxcnn
from eqxcnn.export.__main__ import main
from tests.serve.browser import Browser, find_browser
from tests.serve.test_service import draw_digit
from tests.serve.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
#: The folder into which npm has installed onnxruntime-web and, for the test of a bundler, Vite.
MODULES = Path(os.environ.get("EQXCNN_NODE_MODULES") or ROOT / "node_modules").resolve()
SECTION = re.search(
    r"^## onnxruntime-web.*?(?=^## )", (ROOT / "docs/export.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)[0]


def needs(name):
    reason = f"needs the npm package {name} in `EQXCNN_NODE_MODULES`, or in `node_modules` in the checkout"
    return pytest.mark.skipif(not (MODULES / name).is_dir(), reason=reason)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fast_compilation"),
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium and chromedriver (Debian: chromium-driver)"),
    needs("onnxruntime-web"),
]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the section's commands create, with the section's web page."""
    monkeypatch.chdir(tmp_path)
    export, change_folder, install = blocks("bash")[0].splitlines()
    main(shlex.split(export.removeprefix("python -m eqxcnn.export ")))
    monkeypatch.chdir(change_folder.removeprefix("cd "))
    assert install == "npm install onnxruntime-web"
    Path("node_modules").symlink_to(MODULES)
    (page,) = blocks("html")
    Path("index.html").write_text(page, encoding="utf-8")
    return Path.cwd()


@contextmanager
def served(folder):
    """Runs the section's server for a folder, on a free port; yields its address."""
    (command,) = blocks("bash")[1].splitlines()
    assert command == "python -m http.server"
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        finally:
            process.terminate()


def write_images(folder):
    """Writes images; returns for each path how much the page's probabilities may differ from the classifier's.

    Browsers and Pillow scale with different filters, but images of the network's size are not scaled.
    """
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    transparent = Image.new("LA", (28, 28), (0, 128))
    transparent.paste(draw_digit(1), (0, 0), draw_digit(1))
    large = draw_digit(7).resize((300, 200), Image.Resampling.BICUBIC)
    allowed = {}
    for name, image, difference in (
        ("gray", draw_digit(7), 1e-4), ("color", Image.fromarray(noise), 1e-4), ("transparent", transparent, 1e-4),
        ("large", large, 0.01),
    ):  # fmt: skip
        path = folder / f"{name}.png"
        image.save(path)
        allowed[path] = difference
    return allowed


def check_page(folder, tmp_path):
    classifier = eqxcnn.load("lenet")
    window = Browser(tmp_path / "profile")
    try:
        with served(folder) as address:
            window.open(address)
            wait_until(lambda: window.run("return document.querySelector('input').onchange !== null"))
            for path, difference in write_images(tmp_path).items():
                window.run("document.querySelector('pre').textContent = ''")
                window.choose_file("input", path)
                wait_until(lambda: window.text("pre"))
                shown = dict(line.split(": ") for line in window.text("pre").splitlines())
                expected = jax.nn.softmax(classifier(classifier.prepare(path)))
                assert tuple(shown) == classifier.class_names
                assert np.abs(np.float64(list(shown.values())) - expected).max() < difference, path.name
            asked = {urlsplit(url).netloc for url in window.requests() if url.startswith("http")}
            assert asked == {urlsplit(address).netloc}
    finally:
        window.close()


def test_the_page_shows_the_probabilities_of_the_classifier(folder, tmp_path):
    check_page(folder, tmp_path)


@needs("vite")
def test_the_page_built_with_vite_shows_them_too(folder, tmp_path):
    page = Path("index.html").read_text("utf-8")
    (import_map,) = re.findall(r'<script type="importmap">.*?</script>\n', page, flags=re.DOTALL)
    Path("index.html").write_text(page.replace(import_map, ""), encoding="utf-8")
    Path("public").mkdir()
    Path("lenet.onnx").rename("public/lenet.onnx")
    assert "`npx vite build`" in SECTION
    subprocess.run([shutil.which("node"), "node_modules/vite/bin/vite.js", "build"], check=True, capture_output=True)
    check_page(folder / "dist", tmp_path)
