"""What `eqxcnn` exports, its import time, and the pages of the public modules."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eqxcnn

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {
    path: re.findall(r"^::: (eqxcnn[\w.]*)$", path.read_text("utf-8"), re.M) for path in (DOCS / "api").glob("*.md")
}
PUBLIC = sorted({module for modules in PAGES.values() for module in modules})


@pytest.mark.parametrize("name", eqxcnn.__all__)
def test_every_exported_name_can_be_imported(name):
    assert getattr(eqxcnn, name) is not None
    assert name in dir(eqxcnn)


def test_readme_and_docs_use_only_exported_names():
    texts = [path.read_text("utf-8") for path in [DOCS.parent / "README.md", *DOCS.glob("*.md")]]
    used = {name for text in texts for name in re.findall(r"\beqxcnn\.([A-Za-z_]+)\(", text)}
    used |= {
        name.strip() for text in texts for line in re.findall(r"^from eqxcnn import (.+)$", text, re.M)
        for name in line.split(",")
    }  # fmt: skip
    modules = {path.stem for path in Path(eqxcnn.__file__).parent.iterdir()}
    assert {"fit", "load", "forward", "zoo"} <= used
    assert used - set(eqxcnn.__all__) - modules == set()


def test_importing_the_package_imports_no_other():
    code = "import sys; before = set(sys.modules); import eqxcnn; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "eqxcnn" in loaded
    assert {name.partition(".")[0] for name in loaded} & {"jax", "equinox", "numpy", "datasets"} == set()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module `eqxcnn` has no attribute `nosuch`"):
        _ = eqxcnn.nosuch


@pytest.mark.parametrize("module", PUBLIC)
def test_every_module_with_a_page_lists_its_names(module):
    if module in ("eqxcnn.models", "eqxcnn.layers.initializers"):
        return  # packages of one module per family, and plain functions
    names = importlib.import_module(module).__all__
    assert all(hasattr(importlib.import_module(module), name) for name in names)


def test_every_exported_name_has_a_page():
    listed = {name for module in PUBLIC for name in getattr(importlib.import_module(module), "__all__", ())}
    modules = {module.removeprefix("eqxcnn.") for module in PUBLIC}
    assert set(eqxcnn.__all__) - listed - modules == set()
    navigation = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    assert all(f"api/{path.name}" in navigation for path in PAGES)
