"""House rules that no linter checks: sizes, forbidden calls, and commands and pages that must agree with each other."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import eqxcnn

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted((ROOT / "eqxcnn").rglob("*.py"))
}
README = (ROOT / "README.md").read_text(encoding="utf-8")

TRAIN = (
    "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . "
    "&& .venv/bin/python -m eqxcnn.train --model lenet"
)
TEST = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt '.[test]' && .venv/bin/python -m pytest"


def fences(language: str) -> list[str]:
    """The README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_readme_has_exactly_the_two_set_up_commands():
    marked = re.findall(r"^<!-- setup:(\w+) -->\n```bash\n(.*)\n```$", README, flags=re.MULTILINE)
    assert marked == [("train", TRAIN), ("test", TEST)]
    installs = [line for block in fences("bash") for line in block.splitlines() if re.search(r"pip|venv ", line)]
    assert installs == [TRAIN, TEST]


@pytest.mark.slow
def test_readme_example_runs():
    example = fences("python")[0]
    subprocess.run([sys.executable, "-c", f"{example}\nassert logits.shape == (8, 10)"], cwd=ROOT, check=True)


@pytest.mark.slow
def test_readme_example_of_own_parts_runs(tmp_path):
    example = fences("python")[1]
    check = "assert result.test.accuracy > 0.8 and len(classifier.class_names) == 10"
    subprocess.run([sys.executable, "-c", f"{example}\n{check}"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(("name", "command"), [("train", TRAIN), ("test", TEST)])
def test_ci_runs_the_readmes_own_commands(name, command):
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    function = re.search(r"^from_readme\(\) \{.*?^\}$", script, flags=re.MULTILINE | re.DOTALL)
    assert function is not None
    printed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function[0]}\nfrom_readme {name}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout.strip() == command.replace(".venv", ".venv-ci/readme")
    variable = re.search(rf"^(\w+)=\$\(from_readme {name}\)$", script, flags=re.MULTILINE)
    assert variable is not None
    assert re.search(rf'^[^#\n]*bash -c "\${variable[1]}"( >\S+ 2>&1 &)?$', script, flags=re.MULTILINE)


def test_constraints_are_versions_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pin = re.compile(r'[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*(; python_version (<|>=) "3\.\d+")?')
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not pin.fullmatch(line)] == []
    assert 'jax==0.10.2; python_version < "3.12"' in pins
    assert [line for line in pins if line.startswith(("torch==", "eqxcnn=="))] == []


def test_constraints_pin_each_name_once_for_each_python():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    seen: dict[str, set[str]] = {}
    for line in lines:
        if not line.startswith("#"):
            name, marker = line.split("==")[0], line.partition("; ")[2]
            assert marker not in seen.setdefault(name, set()), line
            seen[name].add(marker)
    both = {'python_version < "3.12"', 'python_version >= "3.12"'}
    assert {name: markers for name, markers in seen.items() if markers not in ({""}, both)} == {}


def test_files_and_functions_are_small():
    long_files = [name for name, text in SOURCES.items() if len(text.splitlines()) > 250]
    long_functions = [
        f"{name}: {node.name}"
        for name, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 70
    ]
    assert (long_files, long_functions) == ([], [])


def test_no_object_hides_a_submodule_of_its_package():
    names = [module.name for module in pkgutil.walk_packages(eqxcnn.__path__, "eqxcnn.") if module.ispkg]
    packages = [importlib.import_module(name) for name in ("eqxcnn", *names)]
    assert len(packages) > 10
    assert [hidden for package in packages for hidden in _hidden_submodules(package)] == []


def _hidden_submodules(package: ModuleType) -> list[str]:
    """Returns the submodules whose names refer to other objects, such as functions, in the package's namespace."""
    return [
        f"{package.__name__}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not isinstance(vars(package).get(module.name, package), ModuleType)
    ]


def test_nothing_is_pickled_or_evaluated():
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "eval()", "exec()", "allow_pickle"}
    found = [
        f"{name}: {used}"
        for name, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        for used in _used(node)
        if used.split(".")[0] in forbidden
    ]
    assert found == []


def _used(node: ast.AST) -> list[str]:
    """Returns the names that a syntax node imports or calls directly; `allow_pickle` if the node sets it to true."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
        case ast.Call(func=ast.Name(id=name)):
            return [f"{name}()"]
        case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
            return ["allow_pickle"]
        case _:
            return []


def test_every_page_of_the_site_is_in_its_menu():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page for entry in site["nav"] for page in _pages(entry)]
    written = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    # The table of all models is the only page that MkDocs copies as it is.
    assert sorted(pages) == sorted([*written, "assets/zoo.html"])
    assert (ROOT / "docs" / "assets" / "zoo.html").exists()


def _pages(entry: dict | str) -> list[str]:
    """Returns the files under an entry of the menu; an entry is a file, or a title with a file or further entries."""
    if isinstance(entry, str):
        return [entry]
    (inner,) = entry.values()
    return [inner] if isinstance(inner, str) else [page for each in inner for page in _pages(each)]
