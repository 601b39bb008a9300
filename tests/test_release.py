"""The files of a release: versions, the table of supported versions, the workflows, the sdist and the wheel."""

import datetime
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import eqxcnn

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", changelog, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (PROJECT["version"], CITATION["date-released"])
    assert PROJECT["version"] == CITATION["version"] == eqxcnn.__version__
    dates = [datetime.date.fromisoformat(date) for _, date in headings[1:]]
    assert dates == sorted(dates, reverse=True)


def test_the_citation_has_what_its_format_requires():
    """The required keys and types of https://github.com/citation-file-format/citation-file-format, version 1.2.0."""
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] in ("software", "dataset")
    assert all(isinstance(CITATION[key], str) for key in ("message", "title", "version", "license", "date-released"))
    # A person has names, and an entity has one `name`.
    assert CITATION["authors"]
    assert all({"name"} <= author.keys() or {"family-names"} <= author.keys() for author in CITATION["authors"])
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])
    known = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "date-released", "license",
             "keywords"}  # fmt: skip
    assert CITATION.keys() <= known
    assert (CITATION["title"], CITATION["license"]) == (PROJECT["name"], PROJECT["license"])


def lowest(package):
    (bound,) = [each.partition(">=")[2] for each in PROJECT["dependencies"] if re.match(rf"{package}>=", each)]
    return bound


def pinned(package, python):
    """Returns the version in `constraints.txt` for a minor version of Python 3."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(rf'{package}==(\S+?)(?:; python_version (<|>=) "3\.(\d+)")?', line):
            version, relation, bound = match.groups()
            if relation is None or (python < int(bound)) == (relation == "<"):
                pins[package] = version
    return pins[package]


def test_the_table_of_supported_versions_is_up_to_date():
    names = [each.rpartition(" :: ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert PROJECT["requires-python"] == f">={names[0]}"
    page = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| 3\.\d+ \|", line)]
    expected = [[name, pinned("jax", int(name[2:])), lowest("jax"), lowest("equinox")] for name in names]
    assert [row[:4] for row in rows] == expected
    (setup,) = [step for step in WORKFLOWS["ci"]["jobs"]["run"]["steps"] if "setup-python" in step.get("uses", "")]
    tested = setup["with"]["python-version"].split()
    assert {row[0] for row in rows if row[4] != "none"} == set(tested)
    assert [row[0] for row in rows if row[4] == "all"] == [min(tested)]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_pin_actions_and_grant_rights_to_single_jobs(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        assert all(re.search(r"@v\d+(\.\d+)*$", step["uses"]) for step in job["steps"] if "uses" in step)


def test_only_the_publishing_job_gets_an_identity_and_it_runs_no_code_of_the_checkout():
    jobs = WORKFLOWS["release"]["jobs"]
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true.
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]
    actions = [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]]
    assert actions == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert "twine check --strict" in "".join(steps)


def test_the_release_refuses_a_tag_of_another_version():
    (check,) = [step["run"] for step in WORKFLOWS["release"]["jobs"]["build"]["steps"] if "tag" in step.get("name", "")]
    check = check.replace("python", sys.executable, 1)
    codes = [
        subprocess.run(["bash", "-c", check], cwd=ROOT, env={**os.environ, "GITHUB_REF_NAME": tag}).returncode
        for tag in (f"v{eqxcnn.__version__}", "v9.9.9")
    ]
    assert codes == [0, 1]


def test_workflows_run_the_commands_of_the_readme_and_of_the_ci_script():
    readme, script = ((ROOT / name).read_text("utf-8") for name in ("README.md", ".ci/run"))
    lines = [
        line for workflow in WORKFLOWS.values() for job in workflow["jobs"].values() for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]  # fmt: skip
    modules = {match[1] for line in lines if (match := re.search(r"-m (\w[\w.]*)", line))}
    assert modules == {"pip", "venv", "mkdocs", "build", "twine", "eqxcnn.train"}
    (train,) = [line.partition(" -m ")[2] for line in lines if "eqxcnn.train" in line]
    assert f"-m {train}\n" in readme
    for command in ("mkdocs build", "-m build", "twine check --strict"):
        assert command in script.replace('"', "")
        assert any(command in line for line in lines)
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert ".ci/run" in lines


@pytest.mark.slow
def test_sdist_and_wheel_hold_the_package_and_no_tests(tmp_path):
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md",
                 "constraints.txt"):  # fmt: skip
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy(__file__, tmp_path / "tests" / "test_release.py")
    shutil.copytree(ROOT / "eqxcnn", tmp_path / "eqxcnn", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_sdist('out'); build_meta.build_wheel('out')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    files = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "eqxcnn").rglob("*") if path.is_file()}
    assert len(files) > 300
    stem = f"eqxcnn-{PROJECT['version']}"
    with zipfile.ZipFile(tmp_path / "out" / f"{stem}-py3-none-any.whl") as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files
        assert f"{stem}.dist-info/licenses/LICENSE" in wheel.namelist()
    with tarfile.open(tmp_path / "out" / f"{stem}.tar.gz") as sdist:
        names = {member.name.removeprefix(f"{stem}/") for member in sdist if member.isfile()}
    assert {name for name in names if name.startswith("eqxcnn/")} == files
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "constraints.txt"} <= names
    assert not any(name.startswith("tests") for name in names)
