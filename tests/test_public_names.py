"""The names that `eqxcnn` and its modules export, the modules that an import loads, and the public modules' pages."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eqxcnn

PACKAGE = Path(eqxcnn.__file__).parent
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


def _defined(body):
    """Yields the public names that a module's statements define, except imports and fallbacks."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        else:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [each.id for target in targets for each in getattr(target, "elts", [target]) if _is_name(each)]
        yield from (name for name in names if not name.startswith("_"))


def _is_name(node):
    return isinstance(node, ast.Name)


def test_every_module_lists_its_names():
    for path in PACKAGE.rglob("*.py"):
        body = ast.parse(path.read_text("utf-8")).body
        listed = [ast.literal_eval(node.value) for node in body if ast.unparse(node).startswith("__all__ = ")]
        if path.name == "__init__.py":  # what it exports is imported, or there is nothing to export
            module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).parent.parts))
            assert all(hasattr(module, name) for names in listed for name in names), path
        elif path.name != "__main__.py":
            imports = [node for node in body if isinstance(node, ast.ImportFrom)]
            imported = {name.asname or name.name for node in imports for name in node.names}
            assert len(listed) == 1, path
            assert set(listed[0]) - imported == set(_defined(body)), path


def test_every_exported_name_has_a_page():
    listed = {name for module in PUBLIC for name in getattr(importlib.import_module(module), "__all__", ())}
    modules = {module.removeprefix("eqxcnn.") for module in PUBLIC}
    assert set(eqxcnn.__all__) - listed - modules == set()
    navigation = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    assert all(f"api/{path.name}" in navigation for path in PAGES)
